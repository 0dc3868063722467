//! The report: `report.html`, one page that needs nothing else, and `metrics.json`.

mod cases;
mod page;
mod svg;

use std::fs;
use std::path::Path;

use super::error::EvaluationError;
use super::result::Evaluation;
use crate::bundle::Manifest;
use crate::training::dataset::Dataset;

/// File of the figures.
pub const METRICS_FILE: &str = "metrics.json";
/// File of the page.
pub const PAGE_FILE: &str = "report.html";

/// Writes both files into `directory`, which is made where it is missing. The worst pictures are
/// read again from the data set.
///
/// # Errors
/// [`EvaluationError`] when a file cannot be written or a picture not be read.
pub fn write_report(
    evaluation: &Evaluation,
    manifest: &Manifest,
    dataset: &Dataset,
    directory: &Path,
) -> Result<(), EvaluationError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| EvaluationError::Report { path, source }
    };
    fs::create_dir_all(directory).map_err(failed(directory))?;
    let metrics = directory.join(METRICS_FILE);
    let mut json = serde_json::to_string_pretty(evaluation).map_err(std::io::Error::from).map_err(failed(&metrics))?;
    json.push('\n');
    fs::write(&metrics, json).map_err(failed(&metrics))?;
    let page = directory.join(PAGE_FILE);
    let worst = cases::worst(evaluation, manifest, dataset)?;
    fs::write(&page, page::page(evaluation, &worst)).map_err(failed(&page))
}

/// Text that may stand in HTML.
fn escape(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut out, c| {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
        out
    })
}
