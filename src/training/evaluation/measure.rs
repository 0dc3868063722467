//! Scored pictures -> figures. Pure.

use std::collections::BTreeMap;

use ndarray::Array2;

use super::error::EvaluationError;
use super::metrics::{
    PRO_LIMIT, Ranking, RankingBuilder, Selection, TYPE_LIMIT, Undefined, Unit, aupro, auroc, average_precision,
    clopper_pearson, pro_curve, roc_curve,
};
use super::region::regions;
use super::result::{AtBoundary, AuthorsFigures, Confusion, Curves, DefectFigures, Figures, Tally};
use crate::bundle::ImageBoundary;
use crate::decision::{enlarge, enlarge_with_aligned_corners};
use crate::inspection::{AnomalyMap, LogLikelihoodMaps, Mask, Size, Verdict};
use crate::training::dataset::Label;

/// Confidence of the intervals.
const CONFIDENCE: f64 = 0.95;

/// One scored picture and what it really shows.
#[derive(Debug, Clone)]
pub struct Case {
    /// What it shows.
    pub label: Label,
    /// Image score, calibrated units.
    pub score: f32,
    /// Verdict.
    pub verdict: Verdict,
    /// Raw log-likelihoods.
    pub maps: LogLikelihoodMaps,
    /// The fused map.
    pub fused: AnomalyMap,
    /// Where the defect is, at model size; none where it is unknown. Not looked at on good pictures.
    pub mask: Option<Mask>,
}

/// The figures of a set of scored pictures.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    /// All together.
    pub figures: Figures,
    /// Per defect type.
    pub per_defect: BTreeMap<String, DefectFigures>,
    /// Verdicts.
    pub at_boundary: AtBoundary,
    /// The paper's own score.
    pub authors: AuthorsFigures,
    /// For drawing.
    pub curves: Curves,
    /// Defect regions at model size.
    pub regions: usize,
}

/// Measures scored pictures; `size` is the model's. Takes eight bytes a pixel for a while.
///
/// # Errors
/// [`EvaluationError::Undefined`] where a metric has no value, [`EvaluationError::TooManyTypes`].
pub fn measure(cases: &[Case], size: Size, boundary: &ImageBoundary) -> Result<Measured, EvaluationError> {
    let types = Types::of(cases)?;
    let images = types.images(cases, cases.iter().map(|case| case.score))?;
    let (pixels, count) = types.pixels(cases, size, |case| enlarge(&case.fused.0, size.height, size.width))?;
    let figures = Types::figures(cases, &images, pixels.as_ref(), None)?;
    let mut per_defect = BTreeMap::new();
    for (kind, name) in &types.names {
        let of_type = |case: &&Case| case.label.is_defect() && case.label.as_str() == name;
        let mut verdicts = Tally::default();
        cases.iter().filter(of_type).for_each(|case| verdicts.count(case.verdict));
        let images_of_type = cases.iter().filter(of_type).count();
        let defect = DefectFigures {
            figures: Types::figures(cases, &images, pixels.as_ref(), Some((*kind, name)))?,
            images: images_of_type,
            with_mask: cases.iter().filter(of_type).filter(|case| case.mask.is_some()).count(),
            verdicts,
            escape_rate: verdicts.accept as f64 / images_of_type as f64,
            escape_interval: clopper_pearson(verdicts.accept, images_of_type, CONFIDENCE),
        };
        per_defect.insert(name.clone(), defect);
    }
    let mut curves = Curves {
        image_roc: undefined("the image ROC curve", roc_curve(&images, Selection::All))?,
        ..Curves::default()
    };
    if let Some(pixels) = &pixels {
        curves.pixel_roc = undefined("the pixel ROC curve", roc_curve(pixels, Selection::All))?;
        curves.pro = undefined("the per-region overlap", pro_curve(pixels, Selection::All))?;
    }
    // The largest lists: free one before the next is built.
    drop(pixels);
    Ok(Measured {
        figures,
        per_defect,
        at_boundary: at_boundary(cases, boundary),
        authors: authors(&types, cases, size)?,
        curves,
        regions: count,
    })
}

fn undefined<T>(metric: &'static str, result: Result<T, Undefined>) -> Result<T, EvaluationError> {
    result.map_err(|source| EvaluationError::Undefined { metric, source })
}

/// The defect types, numbered from 1; good is 0.
struct Types {
    names: Vec<(u8, String)>,
}

impl Types {
    fn of(cases: &[Case]) -> Result<Self, EvaluationError> {
        let mut names: Vec<&str> = cases.iter().filter(|c| c.label.is_defect()).map(|c| c.label.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        if names.len() >= TYPE_LIMIT {
            return Err(EvaluationError::TooManyTypes { found: names.len() });
        }
        Ok(Self { names: (1..=u8::MAX).zip(names.into_iter().map(str::to_owned)).collect() })
    }

    fn number(&self, label: &Label) -> u8 {
        match label {
            Label::Good => 0,
            Label::Defect(kind) => self.names.iter().find(|(_, name)| name == kind).map_or(0, |(number, _)| *number),
        }
    }

    fn images(&self, cases: &[Case], scores: impl Iterator<Item = f32>) -> Result<Ranking, EvaluationError> {
        let mut builder = RankingBuilder::new(Unit::Images, cases.len());
        for (case, score) in cases.iter().zip(scores) {
            let kind = self.number(&case.label);
            let region = if kind == 0 { None } else { Some(undefined("image_auroc", builder.region(kind))?) };
            builder.add(score, kind, region);
        }
        undefined("image_auroc", builder.sort())
    }

    /// Pixels of the good pictures and of the defects with a mask, and the number of regions; none
    /// where no defect has one.
    fn pixels(
        &self,
        cases: &[Case],
        size: Size,
        map: impl Fn(&Case) -> Array2<f32>,
    ) -> Result<(Option<Ranking>, usize), EvaluationError> {
        if !cases.iter().any(|case| case.label.is_defect() && case.mask.is_some()) {
            return Ok((None, 0));
        }
        let used = |case: &&Case| !case.label.is_defect() || case.mask.is_some();
        let count = cases.iter().filter(used).count() * size.width * size.height;
        let mut builder = RankingBuilder::new(Unit::Pixels, count);
        let mut opened = 0;
        for case in cases.iter().filter(used) {
            let kind = self.number(&case.label);
            let map = map(case);
            match case.mask.as_ref().filter(|_| kind != 0) {
                None => map.iter().for_each(|&score| builder.add(score, kind, None)),
                Some(mask) => {
                    let found = regions(mask);
                    let mut numbers = Vec::with_capacity(found.count as usize);
                    for _ in 0..found.count {
                        numbers.push(undefined("aupro", builder.region(kind))?);
                    }
                    opened += numbers.len();
                    for (&score, &label) in map.iter().zip(&found.labels) {
                        let region = (label as usize).checked_sub(1).map(|at| numbers[at]);
                        builder.add(score, kind, region);
                    }
                }
            }
        }
        Ok((Some(undefined("pixel_auroc", builder.sort())?), opened))
    }

    /// The figures of all or of one type.
    fn figures(
        cases: &[Case],
        images: &Ranking,
        pixels: Option<&Ranking>,
        only: Option<(u8, &str)>,
    ) -> Result<Figures, EvaluationError> {
        let selection = only.map_or(Selection::All, |(kind, _)| Selection::Type(kind));
        let masked = |case: &Case| {
            case.label.is_defect() && case.mask.is_some() && only.is_none_or(|(_, name)| case.label.as_str() == name)
        };
        let image_auroc = undefined("image_auroc", auroc(images, selection))?;
        let Some(pixels) = pixels.filter(|_| cases.iter().any(masked)) else {
            let reason = match only {
                None => "no defect has a mask under ground_truth/".to_owned(),
                Some((_, name)) => format!("no picture of {name} has a mask under ground_truth/"),
            };
            return Ok(Figures {
                image_auroc,
                pixel_auroc: None,
                aupro: None,
                pixel_ap: None,
                no_pixel_metrics: Some(reason),
            });
        };
        Ok(Figures {
            image_auroc,
            pixel_auroc: Some(undefined("pixel_auroc", auroc(pixels, selection))?),
            aupro: Some(undefined("aupro", aupro(pixels, selection, PRO_LIMIT))?),
            pixel_ap: Some(undefined("pixel_ap", average_precision(pixels, selection))?),
            no_pixel_metrics: None,
        })
    }
}

impl Tally {
    fn count(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Accept => self.accept += 1,
            Verdict::Suspect => self.suspect += 1,
            // What was not inspected is rejected by the default policy.
            Verdict::Reject | Verdict::NotInspected => self.reject += 1,
        }
    }

    /// All verdicts.
    pub fn total(&self) -> usize {
        self.accept + self.suspect + self.reject
    }
}

fn at_boundary(cases: &[Case], boundary: &ImageBoundary) -> AtBoundary {
    let mut confusion = Confusion::default();
    for case in cases {
        let tally = if case.label.is_defect() { &mut confusion.defective } else { &mut confusion.good };
        tally.count(case.verdict);
    }
    let Confusion { good, defective } = confusion;
    AtBoundary {
        normal: boundary.normal,
        abnormal: boundary.abnormal,
        // Both totals are above 0 where image_auroc is defined.
        false_reject_rate: good.reject as f64 / good.total().max(1) as f64,
        false_reject_interval: clopper_pearson(good.reject, good.total(), CONFIDENCE),
        escape_rate: defective.accept as f64 / defective.total().max(1) as f64,
        escape_interval: clopper_pearson(defective.accept, defective.total(), CONFIDENCE),
        suspects: good.suspect + defective.suspect,
        counts: cases.len(),
        confusion,
    }
}

/// The paper's score, in single precision and with the maxima of the whole test set as in the
/// authors' code; see [`AuthorsFigures`].
fn authors(types: &Types, cases: &[Case], size: Size) -> Result<AuthorsFigures, EvaluationError> {
    let levels = cases.first().map_or(0, |case| case.maps.levels.len());
    let highest: Vec<f32> = (0..levels)
        .map(|level| cases.iter().flat_map(|case| &case.maps.levels[level]).copied().fold(f32::NEG_INFINITY, f32::max))
        .collect();
    let normality = |case: &Case| {
        let mut sum = Array2::<f32>::zeros((size.height, size.width));
        for (map, highest) in case.maps.levels.iter().zip(&highest) {
            sum += &enlarge_with_aligned_corners(&map.mapv(|l| (l - highest).exp()), size.height, size.width);
        }
        sum
    };
    let extremes: Vec<(f32, f32)> = cases
        .iter()
        .map(|case| {
            let range = (f32::INFINITY, f32::NEG_INFINITY);
            normality(case).iter().fold(range, |(low, high), &v| (low.min(v), high.max(v)))
        })
        .collect();
    let top = extremes.iter().map(|e| e.1).fold(f32::NEG_INFINITY, f32::max);
    let images = types.images(cases, extremes.iter().map(|(lowest, _)| top - lowest))?;
    let (pixels, _) = types.pixels(cases, size, |case| normality(case).mapv(|v| top - v))?;
    let pixels = pixels.as_ref();
    Ok(AuthorsFigures {
        image_auroc: undefined("image_auroc", auroc(&images, Selection::All))?,
        pixel_auroc: pixels.map(|p| undefined("pixel_auroc", auroc(p, Selection::All))).transpose()?,
        aupro: pixels.map(|p| undefined("aupro", aupro(p, Selection::All, PRO_LIMIT))).transpose()?,
    })
}
