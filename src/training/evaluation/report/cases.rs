//! The pictures that went worst, as image, map and mask.

use std::fmt::Write;

use super::super::error::EvaluationError;
use super::super::region::resize_by_coverage;
use super::super::result::{Evaluation, ScoredImage};
use super::escape;
use crate::bundle::{Manifest, Preprocessing};
use crate::decision::heatmap;
use crate::inspection::{Picture, Size, Verdict, encode_mask_png, encode_png};
use crate::scoring::PictureFitter;
use crate::training::dataset::{Dataset, load_mask, load_picture};

/// Pictures of each kind.
const SHOWN: usize = 8;
/// Longer side of a picture on the page, pixels at most.
const LONGER_SIDE: usize = 256;

/// HTML of the worst misses and of the worst false alarms.
pub(super) struct Worst {
    pub(super) misses: String,
    pub(super) false_alarms: String,
}

/// The defective pictures of the lowest score and the good ones of the highest.
pub(super) fn worst(evaluation: &Evaluation, manifest: &Manifest, dataset: &Dataset) -> Result<Worst, EvaluationError> {
    let by_score = |good: bool| {
        let mut images: Vec<&ScoredImage> = evaluation.images.iter().filter(|i| (i.label == "good") == good).collect();
        images.sort_by(|a, b| a.score.total_cmp(&b.score));
        images
    };
    let draw = |images: &mut dyn Iterator<Item = &ScoredImage>| {
        images.take(SHOWN).map(|image| card(image, manifest, dataset)).collect::<Result<String, _>>()
    };
    Ok(Worst {
        misses: draw(&mut by_score(false).into_iter())?,
        false_alarms: draw(&mut by_score(true).into_iter().rev())?,
    })
}

fn card(image: &ScoredImage, manifest: &Manifest, dataset: &Dataset) -> Result<String, EvaluationError> {
    let Some(sample) = dataset.samples.iter().find(|sample| sample.name == image.name) else {
        return Ok(String::new());
    };
    let Preprocessing { size, region_of_interest } = manifest.preprocessing;
    let shrink = size.width.max(size.height).div_ceil(LONGER_SIDE).max(1);
    let size = Size { width: (size.width / shrink).max(1), height: (size.height / shrink).max(1) };
    let full = load_picture(&sample.path)?;
    let failed = |source| EvaluationError::Picture { name: sample.name.clone(), source: Box::new(source) };
    let picture = PictureFitter::new().fit(&full, &Preprocessing { size, region_of_interest }).map_err(failed)?;
    let map = blended(&picture, heatmap(&image.map, &manifest.calibration.image, size));
    let mask = match &sample.mask {
        Some(path) if sample.label.is_defect() => {
            let mask = resize_by_coverage(&load_mask(path, full.size())?, region_of_interest, size);
            picture_of(&encode_mask_png(&mask)?, "mask")
        }
        _ => format!(
            "<div class=\"none\">{}</div>",
            if sample.label.is_defect() { "no mask" } else { "good: nothing to find" }
        ),
    };
    let wrong = match (sample.label.is_defect(), image.verdict) {
        (true, Verdict::Accept) | (false, Verdict::Reject) => " wrong",
        _ => "",
    };
    Ok(format!(
        "<div class=\"case\" style=\"--shape:{}/{}\"><div class=\"pictures\">{}{}{mask}</div>\
         <p><span class=\"verdict{wrong}\">{}</span> at {:.2} · {}</p></div>",
        size.width,
        size.height,
        picture_of(&encode_png(&picture)?, "picture"),
        picture_of(&encode_png(&map)?, "anomaly map"),
        image.verdict,
        image.score,
        escape(&image.name),
    ))
}

/// The map over the picture, everywhere: what was missed lies below every boundary, where the
/// line's own overlay shows nothing.
fn blended(picture: &Picture, mut map: Picture) -> Picture {
    for (over, &under) in map.rgb_mut().iter_mut().zip(picture.rgb()) {
        *over = (0.65 * f32::from(*over) + 0.35 * f32::from(under)).round() as u8;
    }
    map
}

fn picture_of(png: &[u8], what: &str) -> String {
    let mut out = String::from("<img src=\"data:image/png;base64,");
    base64(png, &mut out);
    let _ = write!(out, "\" alt=\"{what}\" loading=\"lazy\">");
    out
}

/// RFC 4648 section 4.
fn base64(bytes: &[u8], out: &mut String) {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for at in 0..4 {
            // A chunk of n bytes has n + 1 letters.
            let letter = LETTERS[(bits >> (18 - 6 * at) & 63) as usize] as char;
            out.push(if at as usize <= chunk.len() { letter } else { '=' });
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn base64_agrees_with_the_vectors_of_rfc_4648() {
        let vectors =
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("foobar", "Zm9vYmFy")];
        for (plain, want) in vectors {
            let mut got = String::new();
            super::base64(plain.as_bytes(), &mut got);
            assert_eq!(got, want);
        }
    }
}
