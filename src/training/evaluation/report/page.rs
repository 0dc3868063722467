//! The page.

use std::fmt::Write;

use super::super::metrics::PRO_LIMIT;
use super::super::result::{Evaluation, Exclusion, Figures, Tally};
use super::cases::Worst;
use super::{escape, svg};

const STYLE: &str = include_str!("style.css");

/// The whole page.
pub(super) fn page(evaluation: &Evaluation, worst: &Worst) -> String {
    let name = escape(&evaluation.bundle.name);
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><title>{name}: evaluation</title>\
         <style>{STYLE}</style></head><body><main>"
    );
    head(&mut out, evaluation);
    verdicts(&mut out, evaluation);
    defects(&mut out, evaluation);
    plots(&mut out, evaluation);
    gallery(
        &mut out,
        "Worst misses",
        "Defective pictures of the lowest score: picture, anomaly map (magenta at the normal boundary, orange at the \
         abnormal one), mask.",
        &worst.misses,
    );
    gallery(&mut out, "Worst false alarms", "Good pictures of the highest score.", &worst.false_alarms);
    rest(&mut out, evaluation);
    out.push_str("</main></body></html>\n");
    out
}

fn figure(value: Option<f64>) -> String {
    value.map_or_else(|| "–".to_owned(), |v| format!("{v:.3}"))
}

fn percent(rate: f64) -> String {
    format!("{:.1} %", rate * 100.0)
}

fn interval([low, high]: [f64; 2]) -> String {
    format!("{:.1}–{:.1} %", low * 100.0, high * 100.0)
}

fn head(out: &mut String, evaluation: &Evaluation) {
    let counts = &evaluation.counts;
    let _ = write!(
        out,
        "<h1>{}</h1><p class=\"soft\">version {} · evaluated on {}: {} good and {} defective pictures, {} left out</p>",
        escape(&evaluation.bundle.name),
        escape(&evaluation.bundle.version),
        escape(&evaluation.data),
        counts.good,
        counts.defective,
        evaluation.excluded.len()
    );
    let figures = &evaluation.figures;
    let boundary = &evaluation.at_boundary;
    out.push_str("<div class=\"tiles\">");
    let tiles = [
        (figure(Some(figures.image_auroc)), "image AUROC".to_owned()),
        (figure(figures.pixel_auroc), "pixel AUROC".to_owned()),
        (figure(figures.aupro), format!("AUPRO to {PRO_LIMIT}")),
        (figure(figures.pixel_ap), "pixel average precision".to_owned()),
        (percent(boundary.false_reject_rate), format!("false rejects ({})", interval(boundary.false_reject_interval))),
        (percent(boundary.escape_rate), format!("escapes ({})", interval(boundary.escape_interval))),
    ];
    for (value, what) in tiles {
        let _ = write!(out, "<div class=\"tile\"><b>{value}</b><span>{what}</span></div>");
    }
    out.push_str("</div>");
    for text in figures.no_pixel_metrics.iter().chain(&evaluation.warnings) {
        let _ = write!(out, "<p class=\"warning\">{}</p>", escape(text));
    }
}

fn verdicts(out: &mut String, evaluation: &Evaluation) {
    let boundary = &evaluation.at_boundary;
    let _ = write!(
        out,
        "<h2>At the calibrated boundary</h2><p class=\"soft\">Accepted up to a score of {:.2}, suspect up to {:.2}, \
         rejected beyond. Intervals are exact (Clopper-Pearson, 95 %); suspects are neither false rejects nor \
         escapes.</p><div class=\"scroll\"><table><tr><th>shows</th><th>accept</th><th>suspect</th><th>reject</th>\
         <th>pictures</th></tr>",
        boundary.normal, boundary.abnormal
    );
    for (name, Tally { accept, suspect, reject }) in
        [("good", boundary.confusion.good), ("a defect", boundary.confusion.defective)]
    {
        let total = accept + suspect + reject;
        let _ =
            write!(out, "<tr><td>{name}</td><td>{accept}</td><td>{suspect}</td><td>{reject}</td><td>{total}</td></tr>");
    }
    out.push_str("</table></div>");
}

fn cells(out: &mut String, figures: &Figures) {
    for value in [Some(figures.image_auroc), figures.pixel_auroc, figures.aupro, figures.pixel_ap] {
        let _ = write!(out, "<td>{}</td>", figure(value));
    }
}

fn defects(out: &mut String, evaluation: &Evaluation) {
    out.push_str(
        "<h2>Per defect type</h2><p class=\"soft\">Each type's pictures against all good ones.</p>\
         <div class=\"scroll\"><table><tr><th>type</th><th>pictures</th><th>with mask</th><th>image AUROC</th>\
         <th>pixel AUROC</th><th>AUPRO</th><th>pixel AP</th><th>escapes</th><th>suspects</th></tr>",
    );
    for (name, defect) in &evaluation.per_defect {
        let _ = write!(out, "<tr><td>{}</td><td>{}</td><td>{}</td>", escape(name), defect.images, defect.with_mask);
        cells(out, &defect.figures);
        let _ = write!(
            out,
            "<td>{} ({})</td><td>{}</td></tr>",
            percent(defect.escape_rate),
            interval(defect.escape_interval),
            defect.verdicts.suspect
        );
    }
    for (name, means) in [("mean of seen types", &evaluation.seen), ("mean of unseen types", &evaluation.unseen)] {
        // Where all types are of one kind their mean says little beside the whole.
        let Some(means) = means.as_ref().filter(|means| means.types.len() < evaluation.per_defect.len()) else {
            continue;
        };
        let _ = write!(out, "<tr><td>{name}</td><td></td><td></td>");
        for value in [Some(means.image_auroc), means.pixel_auroc, means.aupro, means.pixel_ap] {
            let _ = write!(out, "<td>{}</td>", figure(value));
        }
        let _ = write!(out, "<td>{}</td><td></td></tr>", percent(means.escape_rate));
    }
    out.push_str("</table></div>");
}

fn plots(out: &mut String, evaluation: &Evaluation) {
    let (mut good, mut defective) = (Vec::new(), Vec::new());
    for image in &evaluation.images {
        if image.label == "good" { good.push(image.score) } else { defective.push(image.score) }
    }
    let boundary = &evaluation.at_boundary;
    let _ = write!(
        out,
        "<h2>Image scores</h2><p class=\"soft\"><span class=\"key\" style=\"background:var(--good);margin-left:0\"></span>\
         good ({})<span class=\"key\" style=\"background:var(--defective)\"></span>defective ({})</p>\
         <div class=\"card\">{}</div>",
        good.len(),
        defective.len(),
        svg::histogram(&good, &defective, boundary.normal, boundary.abnormal)
    );
    let curves = &evaluation.curves;
    let figures = &evaluation.figures;
    let mut roc = vec![svg::Series {
        class: "good",
        name: format!("images, {:.3}", figures.image_auroc),
        curve: &curves.image_roc,
    }];
    if let Some(area) = figures.pixel_auroc {
        roc.push(svg::Series { class: "second", name: format!("pixels, {area:.3}"), curve: &curves.pixel_roc });
    }
    let _ = write!(
        out,
        "<h2>Curves</h2><div class=\"pair\"><div class=\"card\"><b>Receiver operating characteristic</b>{}</div>",
        svg::curves(&roc, 1.0, "false positive rate", "true positive rate", true)
    );
    if let Some(area) = figures.aupro {
        let pro = [svg::Series { class: "second", name: format!("regions, {area:.3}"), curve: &curves.pro }];
        let _ = write!(
            out,
            "<div class=\"card\"><b>Per-region overlap</b>{}</div>",
            svg::curves(&pro, PRO_LIMIT, "false positive rate of pixels", "mean share of a region found", false)
        );
    }
    out.push_str("</div>");
}

fn gallery(out: &mut String, title: &str, what: &str, cards: &str) {
    let _ = write!(out, "<h2>{title}</h2><p class=\"soft\">{what}</p><div class=\"cases\">{cards}</div>");
}

fn rest(out: &mut String, evaluation: &Evaluation) {
    let (ours, theirs) = (&evaluation.figures, &evaluation.authors_score);
    out.push_str(
        "<h2>Beside the paper's own score</h2><p class=\"soft\">The authors add up e^(l - max l) with maxima over the \
         whole test set, which no line can know; ours is the calibrated sum of the negative log-likelihoods l.</p>\
         <div class=\"scroll\"><table><tr><th>score</th><th>image AUROC</th><th>pixel AUROC</th><th>AUPRO</th></tr>",
    );
    for (name, image, pixel, region) in [
        ("calibrated (used by the line)", ours.image_auroc, ours.pixel_auroc, ours.aupro),
        ("authors", theirs.image_auroc, theirs.pixel_auroc, theirs.aupro),
    ] {
        let _ = write!(
            out,
            "<tr><td>{name}</td><td>{image:.3}</td><td>{}</td><td>{}</td></tr>",
            figure(pixel),
            figure(region)
        );
    }
    let _ = write!(
        out,
        "</table></div><p class=\"soft\">{:.1} ms of processor and {:.1} ms of wall time a picture, reading included.</p>",
        evaluation.cost.cpu_ms_per_image, evaluation.cost.wall_ms_per_image
    );
    if !evaluation.excluded.is_empty() {
        let _ = write!(out, "<details><summary>{} test pictures left out</summary><ul>", evaluation.excluded.len());
        for excluded in &evaluation.excluded {
            let why = match excluded.reason {
                Exclusion::KnownDefect => "known defect of the training",
                Exclusion::GroupOfKnownDefect => "same part as a known defect",
                Exclusion::TrainingNormal => "normal of the training",
            };
            let _ = write!(out, "<li>{} ({why})</li>", escape(&excluded.name));
        }
        out.push_str("</ul></details>");
    }
}
