//! Plots as inline SVG. Colours come from the page's style sheet, so that they follow its theme.

use std::fmt::Write;

use super::super::metrics::Curve;

const WIDTH: f64 = 460.0;
const HEIGHT: f64 = 320.0;
const LEFT: f64 = 52.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 44.0;

/// The drawing area and the numbers it stands for.
struct Frame {
    x: (f64, f64),
    y: (f64, f64),
    width: f64,
}

impl Frame {
    fn at(&self, x: f64, y: f64) -> (f64, f64) {
        let across = (x - self.x.0) / (self.x.1 - self.x.0);
        let up = (y - self.y.0) / (self.y.1 - self.y.0);
        (LEFT + across * (self.width - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM))
    }

    /// Opens the drawing with axes, grid, numbers and labels.
    fn open(&self, out: &mut String, title: &str, x_label: &str, y_label: &str) {
        let width = self.width;
        let _ = write!(out, "<svg viewBox=\"0 0 {width} {HEIGHT}\" role=\"img\" aria-label=\"{title}\">");
        for tick in ticks(self.x) {
            let (x, bottom) = self.at(tick, self.y.0);
            let _ = write!(out, "<line class=\"grid\" x1=\"{x:.1}\" y1=\"{TOP}\" x2=\"{x:.1}\" y2=\"{bottom:.1}\"/>");
            let _ = write!(
                out,
                "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                bottom + 16.0,
                tidy(tick)
            );
        }
        for tick in ticks(self.y) {
            let (left, y) = self.at(self.x.0, tick);
            let right = width - RIGHT;
            let _ =
                write!(out, "<line class=\"grid\" x1=\"{left:.1}\" y1=\"{y:.1}\" x2=\"{right:.1}\" y2=\"{y:.1}\"/>");
            let _ = write!(
                out,
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                left - 6.0,
                y + 4.0,
                tidy(tick)
            );
        }
        let (left, bottom) = self.at(self.x.0, self.y.0);
        let _ = write!(out, "<path class=\"axis\" d=\"M{left:.1} {TOP}V{bottom:.1}H{:.1}\"/>", width - RIGHT);
        let _ = write!(
            out,
            "<text class=\"label\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{x_label}</text>",
            LEFT.midpoint(width - RIGHT),
            HEIGHT - 8.0
        );
        let middle = TOP.midpoint(HEIGHT - BOTTOM);
        let _ = write!(
            out,
            "<text class=\"label\" transform=\"translate(13 {middle:.1}) rotate(-90)\" text-anchor=\"middle\">{y_label}</text>"
        );
    }
}

/// Round steps, four to eight of them.
fn ticks((low, high): (f64, f64)) -> Vec<f64> {
    let rough = (high - low) / 5.0;
    if !(rough.is_finite() && rough > 0.0) {
        return Vec::new();
    }
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * power).find(|s| *s >= rough * 0.999).unwrap_or(rough);
    let first = (low / step - 1e-9).ceil() as i64;
    let last = (high / step + 1e-9).floor() as i64;
    (first..=last).map(|k| k as f64 * step).collect()
}

/// A number as short as it can be said.
fn tidy(value: f64) -> String {
    let text = format!("{value:.4}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

/// One line of a curve plot.
pub(super) struct Series<'a> {
    /// Class of the style sheet that colours it.
    pub(super) class: &'static str,
    /// Said in the legend.
    pub(super) name: String,
    /// Points.
    pub(super) curve: &'a Curve,
}

/// Curves over a rate from 0 to `x_limit`, with the diagonal of chance where `chance` is set.
pub(super) fn curves(series: &[Series<'_>], x_limit: f64, x_label: &str, y_label: &str, chance: bool) -> String {
    let frame = Frame { x: (0.0, x_limit), y: (0.0, 1.0), width: WIDTH };
    let mut out = String::new();
    frame.open(&mut out, y_label, x_label, y_label);
    if chance {
        let ((x1, y1), (x2, y2)) = (frame.at(0.0, 0.0), frame.at(x_limit, x_limit));
        let _ = write!(out, "<line class=\"chance\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>");
    }
    for (index, line) in series.iter().enumerate() {
        let mut path = String::new();
        for [x, y] in cut(line.curve, x_limit) {
            let (x, y) = frame.at(x, y);
            let _ = write!(path, "{}{x:.1} {y:.1}", if path.is_empty() { 'M' } else { 'L' });
        }
        let _ = write!(out, "<path class=\"curve {}\" d=\"{path}\"/>", line.class);
        let y = HEIGHT - BOTTOM - 14.0 - 18.0 * (series.len() - 1 - index) as f64;
        let x = WIDTH - RIGHT - 200.0;
        let _ = write!(
            out,
            "<line class=\"curve {}\" x1=\"{x}\" y1=\"{:.1}\" x2=\"{}\" y2=\"{:.1}\"/>",
            line.class,
            y - 4.0,
            x + 22.0,
            y - 4.0
        );
        let _ = write!(out, "<text class=\"legend\" x=\"{}\" y=\"{y:.1}\">{}</text>", x + 28.0, line.name);
    }
    out.push_str("</svg>");
    out
}

/// The curve up to a limit, its last piece interpolated.
fn cut(curve: &Curve, limit: f64) -> Vec<[f64; 2]> {
    let inside = curve.partition_point(|p| p[0] <= limit);
    let mut points = curve[..inside].to_vec();
    if let (Some(a), Some(b)) = (points.last().copied(), curve.get(inside)) {
        points.push([limit, a[1] + (b[1] - a[1]) * (limit - a[0]) / (b[0] - a[0])]);
    }
    points
}

/// Bars across.
const BINS: usize = 48;

/// Image scores of good and of defective pictures as shares of each, with both boundaries drawn
/// in. Scores beyond the far end are gathered in the last bar, so that a few extreme ones do not
/// squeeze the rest.
pub(super) fn histogram(good: &[f32], defective: &[f32], normal: f32, abnormal: f32) -> String {
    let mut all: Vec<f64> = good.iter().chain(defective).map(|&s| f64::from(s)).collect();
    all.sort_by(f64::total_cmp);
    let (normal, abnormal) = (f64::from(normal), f64::from(abnormal));
    let lowest = all.first().copied().unwrap_or(0.0).min(normal);
    let highest = all.last().copied().unwrap_or(1.0);
    // The middle of the scores and the boundaries must be easy to see; a long tail need not.
    let usual = all.get(all.len() * 9 / 10).copied().unwrap_or(highest);
    let end = highest.min((usual - lowest).mul_add(1.25, lowest)).max((abnormal - lowest).mul_add(1.3, lowest));
    let end = if end > lowest { end } else { lowest + 1.0 };
    let count = |scores: &[f32]| {
        let mut bins = [0_usize; BINS];
        for &score in scores {
            let at = (f64::from(score) - lowest) / (end - lowest) * BINS as f64;
            bins[(at as usize).min(BINS - 1)] += 1;
        }
        bins.map(|n| n as f64 / scores.len().max(1) as f64)
    };
    let (good, defective) = (count(good), count(defective));
    let tallest = good.iter().chain(&defective).copied().fold(0.0, f64::max).max(0.01);

    let width = 940.0;
    let frame = Frame { x: (lowest, end), y: (0.0, tallest * 1.12), width };
    let mut out = String::new();
    let tail = if highest > end { " (the last bar holds all that lies beyond)" } else { "" };
    frame.open(
        &mut out,
        "Histogram of image scores",
        &format!("image score, calibrated units{tail}"),
        "share of pictures",
    );
    let step = (end - lowest) / BINS as f64;
    for (class, bins) in [("good", good), ("defective", defective)] {
        for (bin, share) in bins.into_iter().enumerate().filter(|(_, share)| *share > 0.0) {
            let (x, y) = frame.at(lowest + step * bin as f64, share);
            let (right, bottom) = frame.at(lowest + step * (bin + 1) as f64, 0.0);
            let _ = write!(
                out,
                "<rect class=\"bar {class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{:.1}\"/>",
                right - x - 1.0,
                bottom - y
            );
        }
    }
    // Labels beside their lines and on two heights: the lines may lie close together.
    for (value, name, class, y) in
        [(normal, "normal boundary", "normal", 24.0), (abnormal, "abnormal boundary", "abnormal", 40.0)]
    {
        let (x, bottom) = frame.at(value, 0.0);
        let (at, anchor) = if x > 0.7 * width { (x - 5.0, "end") } else { (x + 5.0, "start") };
        let _ = write!(
            out,
            "<line class=\"boundary {class}\" x1=\"{x:.1}\" y1=\"{TOP}\" x2=\"{x:.1}\" y2=\"{bottom:.1}\"/>"
        );
        let _ = write!(
            out,
            "<text class=\"legend\" x=\"{at:.1}\" y=\"{y}\" text-anchor=\"{anchor}\">{name} {}</text>",
            tidy((value * 100.0).round() / 100.0)
        );
    }
    out.push_str("</svg>");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_lie_inside() {
        let near = |got: Vec<f64>, want: &[f64]| {
            assert_eq!(got.len(), want.len(), "{got:?}");
            assert!(got.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-9), "{got:?}");
        };
        near(ticks((0.0, 1.0)), &[0.0, 0.2, 0.4, 0.6, 0.8, 1.0]);
        near(ticks((0.0, 0.3)), &[0.0, 0.1, 0.2, 0.3]);
        near(ticks((-3.0, 41.0)), &[0.0, 10.0, 20.0, 30.0, 40.0]);
        assert!(ticks((1.0, 1.0)).is_empty());
    }

    #[test]
    fn equal_scores_still_make_a_histogram() {
        let drawing = histogram(&[1.0, 1.0], &[1.0], 1.0, 1.0);
        assert!(!drawing.contains("NaN") && !drawing.contains("inf"), "{drawing}");
    }
}
