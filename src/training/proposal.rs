//! A model size that keeps the pictures' aspect and in which the known defects can be seen.
//!
//! The finest level of the model has a cell for every 4 × 4 pixels. A defect narrower than a cell is
//! averaged with what lies beside it and is lost more often than not; one of two cells stands out
//! wherever it lies on the grid. So the size follows from how wide defects are, measured on their
//! masks, and it is the cost of the model, too: features and scoring take time by the pixel.

use super::dataset::{Dataset, DatasetError, Sample, load_mask, picture_size};
use super::progress::Progress;
use super::settings::Settings;
use crate::inspection::{Mask, Rectangle, Size};

/// Side of a cell of the finest level, model pixels.
const CELL: f64 = 4.0;
/// Width that all but the smallest tenth of the defects should have, model pixels.
const WANTED: f64 = 2.0 * CELL;
/// The size without any choice.
const DEFAULT: Size = Size { width: 256, height: 256 };
/// Cost 1: pixels of the default size.
const UNIT: f64 = 256.0 * 256.0;
/// Highest cost that is proposed.
const BUDGET: f64 = 16.0;
/// Sides of a model, from [`Settings::problems`].
const SIDES: std::ops::RangeInclusive<usize> = 32..=4096;
/// Every side is a multiple of it: the coarsest stride.
const STEP: usize = 16;
/// Aspect up to which a size can keep it.
const LONGEST_ASPECT: f64 = 32.0;

/// Why no size can be proposed.
#[derive(Debug, thiserror::Error)]
pub enum ProposalError {
    /// Too long and narrow.
    #[error(
        "the training pictures are {source_size}: no model size keeps an aspect beyond {LONGEST_ASPECT} to 1; cut them with --region or name a size with --image-size"
    )]
    Aspect {
        /// What the model would see, source pixels.
        source_size: Size,
    },
    /// The region does not lie in a picture.
    #[error("the region of interest {}x{} at {}, {} leaves {name}, which is {size}", region.width, region.height, region.x, region.y)]
    RegionOutside {
        /// The region.
        region: Rectangle,
        /// The picture.
        name: String,
        /// Its size.
        size: Size,
    },
    /// The data set.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
}

/// How wide one known defect is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DefectWidth {
    /// Mean width across its longer side, source pixels.
    pub width: f64,
    /// The picture (or region of interest) it lies in, source pixels.
    pub source: Size,
}

impl DefectWidth {
    /// The width once the source is scaled to a model's size, model pixels.
    fn at(&self, size: Size) -> f64 {
        let scale = |model: usize, source: usize| model as f64 / source as f64;
        self.width * scale(size.width, self.source.width).min(scale(size.height, self.source.height))
    }
}

/// A size and what led to it.
#[derive(Debug, Clone, PartialEq)]
pub struct Proposal {
    /// The proposed model size.
    pub size: Size,
    /// What the model sees of a usual picture, source pixels.
    pub source: Size,
    /// The defects that were measured.
    pub defects: Vec<DefectWidth>,
    /// The size that the defects ask for, where the budget did not allow it.
    pub beyond_budget: Option<Size>,
}

impl Proposal {
    /// Proposes a size for a data set. `known` are the defects that training uses; where none of
    /// them has a mask, every defect of the set that has one is measured in their place.
    ///
    /// # Errors
    /// [`ProposalError`]: a picture or mask cannot be read, or the region leaves one.
    pub fn of(dataset: &Dataset, known: &[Sample], region: Option<Rectangle>) -> Result<Self, ProposalError> {
        let cut = |size: Size, name: &str| match region {
            Some(region) if !region.fits(size) => {
                Err(ProposalError::RegionOutside { region, name: name.to_owned(), size })
            }
            Some(region) => Ok(Size { width: region.width, height: region.height }),
            None => Ok(size),
        };
        let mut sources = Vec::new();
        for sample in dataset.train_good() {
            sources.push(cut(picture_size(&sample.path)?, &sample.name)?);
        }
        let with_mask = |samples: Vec<&Sample>| -> Vec<Sample> {
            samples.into_iter().filter(|sample| sample.mask.is_some()).cloned().collect()
        };
        let mut marked = with_mask(known.iter().collect());
        if marked.is_empty() {
            marked = with_mask(dataset.test_defects());
        }
        let mut defects = Vec::new();
        for sample in &marked {
            let Some(path) = &sample.mask else { continue };
            let size = picture_size(&sample.path)?;
            let source = cut(size, &sample.name)?;
            let mask = load_mask(path, size)?;
            let seen = region.unwrap_or(Rectangle { x: 0, y: 0, width: size.width, height: size.height });
            defects.extend(largest_width(&mask, seen).map(|width| DefectWidth { width, source }));
        }
        Ok(Self::from_sizes(&sources, defects))
    }

    /// Proposes a size from what was measured: the smallest one in the sources' median aspect, from
    /// about the area of 256x256 on, in which nine tenths of the defects are two cells wide; at
    /// most 16 times that area and, unless it is smaller than 256x256, at most the source.
    /// An aspect beyond 32 to 1 is not kept, see [`Proposal::settle`].
    pub fn from_sizes(sources: &[Size], defects: Vec<DefectWidth>) -> Self {
        let mut sorted = sources.to_vec();
        sorted.sort_by(|a, b| aspect(*a).total_cmp(&aspect(*b)).then(a.width.cmp(&b.width)));
        let source = sorted.get(sorted.len() / 2).copied().unwrap_or(DEFAULT);
        let sizes = sizes_in_aspect(source);
        // By the ratio, not the difference: half and double are equally far.
        let nearest = |a: &Size| (cost(*a).ln()).abs();
        let floor = sizes.iter().copied().min_by(|a, b| nearest(a).total_cmp(&nearest(b))).unwrap_or(DEFAULT);
        let inside = |size: &Size| size.width <= source.width && size.height <= source.height;
        let candidates = || sizes.iter().copied().filter(|size| cost(*size) >= cost(floor));
        let seen = |size: Size| too_narrow(&defects, size, WANTED) * 10 <= defects.len();
        let mut within = candidates().filter(|size| inside(size));
        let asked = within.clone().find(|&size| seen(size)).or_else(|| within.next_back()).unwrap_or(floor);
        let size = candidates().rfind(|&size| cost(size) <= BUDGET.min(cost(asked))).unwrap_or(floor);
        Self { size, source, defects, beyond_budget: (asked != size).then_some(asked) }
    }

    /// Settings with the size that will be used: the proposed one where it was left to the program,
    /// else their own, with a warning where known defects are lost in it.
    ///
    /// # Errors
    /// [`ProposalError::Aspect`] where a size was left to the program and none keeps the aspect.
    pub fn settle(&self, settings: &Settings, progress: &dyn Progress) -> Result<Settings, ProposalError> {
        if settings.auto_size {
            if !has_sizes(self.source) {
                return Err(ProposalError::Aspect { source_size: self.source });
            }
            progress.tell(&self.reason());
            return Ok(Settings { size: self.size, ..settings.clone() });
        }
        if let Some(warning) = self.warning(settings.size) {
            progress.warn(&warning);
        }
        Ok(settings.clone())
    }

    /// Why this size, and what it costs.
    pub fn reason(&self) -> String {
        let Self { size, source, defects, beyond_budget } = self;
        let mut text = format!(
            "image size {size} for pictures of {source}, {:.1} times the features and scoring of 256x256",
            cost(*size)
        );
        if defects.is_empty() {
            text += ": no defect has a mask to go by, so only the aspect was fitted";
            return text;
        }
        let widths = {
            let mut widths: Vec<f64> = defects.iter().map(|defect| defect.at(*size)).collect();
            widths.sort_by(f64::total_cmp);
            widths
        };
        text += &format!(
            ": of {} defects with masks the smallest tenth is {:.1} pixels wide there, {WANTED} are wanted",
            widths.len(),
            widths[widths.len() / 10]
        );
        match beyond_budget {
            Some(asked) => {
                text += &format!(
                    "; {asked} ({:.1} times) is beyond the budget of {BUDGET} times: name it with --image-size to have it",
                    cost(*asked)
                );
            }
            None if too_narrow(defects, *size, WANTED) * 10 > defects.len() => {
                text += "; the pictures have no more pixels: a finer camera or a region of interest would help";
            }
            None => {}
        }
        text
    }

    /// What is lost at a size that a person chose; none where every defect covers a cell or where
    /// the proposal is no better.
    pub fn warning(&self, size: Size) -> Option<String> {
        let lost = too_narrow(&self.defects, size, CELL);
        let better = has_sizes(self.source) && lost > too_narrow(&self.defects, self.size, CELL);
        better.then(|| {
            format!(
                "{lost} of {} defects with masks are less than {CELL} pixels, a cell of the finest level, wide at {size}: --image-size auto would take {}, about {:.1} times the cost",
                self.defects.len(),
                self.size,
                cost(self.size) / cost(size)
            )
        })
    }

    /// How many times as wide as high the ground under one pixel of a model of this size is.
    pub fn stretch(&self, size: Size) -> f32 {
        let ground = |source: usize, model: usize| source as f32 / model as f32;
        ground(self.source.width, size.width) / ground(self.source.height, size.height)
    }
}

/// Width by height.
fn aspect(size: Size) -> f64 {
    size.width as f64 / size.height as f64
}

/// Whether a model size can keep a source's aspect.
fn has_sizes(source: Size) -> bool {
    aspect(source).max(1.0 / aspect(source)) <= LONGEST_ASPECT
}

/// Features and scoring of a size as a multiple of 256x256's.
fn cost(size: Size) -> f64 {
    (size.width * size.height) as f64 / UNIT
}

/// Defects narrower than so many model pixels at a size.
fn too_narrow(defects: &[DefectWidth], size: Size, pixels: f64) -> usize {
    defects.iter().filter(|defect| defect.at(size) < pixels).count()
}

/// Every allowed size as near to the source's aspect as multiples of 16 come, smallest first.
fn sizes_in_aspect(source: Size) -> Vec<Size> {
    let wide = source.width >= source.height;
    let (long, short) = (source.width.max(source.height), source.width.min(source.height));
    SIDES
        .step_by(STEP)
        .filter_map(|longer| {
            let steps = (longer as f64 * short as f64 / long as f64 / STEP as f64).round() as usize;
            let shorter = steps * STEP;
            SIDES.contains(&shorter).then_some(if wide {
                Size { width: longer, height: shorter }
            } else {
                Size { width: shorter, height: longer }
            })
        })
        .collect()
}

/// Width of the largest connected region of a mask inside `seen`: its area over the longer side of
/// its box, so that a scratch counts by its breadth however it lies. None where nothing is marked.
/// Of several regions the largest speaks, for a picture is caught by it, and masks have crumbs.
fn largest_width(mask: &Mask, seen: Rectangle) -> Option<f64> {
    let (width, height) = (seen.width, seen.height);
    let mut open: Vec<bool> =
        (0..width * height).map(|at| mask.is_defect(seen.x + at % width, seen.y + at / width)).collect();
    let mut stack = Vec::new();
    let mut best: Option<(usize, usize)> = None;
    for start in 0..open.len() {
        if !std::mem::take(&mut open[start]) {
            continue;
        }
        let (mut area, mut left, mut right, mut top, mut bottom) = (0, width, 0, height, 0);
        stack.push(start);
        while let Some(at) = stack.pop() {
            let (x, y) = (at % width, at / width);
            area += 1;
            (left, right, top, bottom) = (left.min(x), right.max(x), top.min(y), bottom.max(y));
            for y in y.saturating_sub(1)..=(y + 1).min(height - 1) {
                for x in x.saturating_sub(1)..=(x + 1).min(width - 1) {
                    if std::mem::take(&mut open[y * width + x]) {
                        stack.push(y * width + x);
                    }
                }
            }
        }
        let longer = (right + 1 - left).max(bottom + 1 - top);
        best = best.max(Some((area, longer)));
    }
    best.map(|(area, longer)| area as f64 / longer as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::training::Silent;

    fn size(width: usize, height: usize) -> Size {
        Size { width, height }
    }

    fn proposal(source: Size, widths: &[f64]) -> Proposal {
        let defects = widths.iter().map(|&width| DefectWidth { width, source }).collect();
        Proposal::from_sizes(&[source; 3], defects)
    }

    #[test]
    fn the_size_keeps_the_aspect_and_gives_defects_two_cells() {
        let proposal = proposal(size(2448, 2048), &[25.0; 10]);
        assert_eq!(proposal.size, size(784, 656));
        assert_eq!(proposal.beyond_budget, None);
        assert!(proposal.reason().contains("7.8 times"), "{}", proposal.reason());
        assert_eq!(proposal.warning(proposal.size), None);
        let warning = proposal.warning(size(256, 256)).unwrap();
        assert!(warning.contains("10 of 10") && warning.contains("784x656"), "{warning}");
    }

    #[test]
    fn large_defects_and_none_leave_about_the_default_s_area() {
        assert_eq!(proposal(size(2448, 2048), &[400.0; 4]).size, size(288, 240));
        let silent = proposal(size(2000, 1000), &[]);
        assert_eq!(silent.size, size(352, 176));
        assert!(silent.reason().contains("no defect has a mask"));
        assert_eq!(silent.warning(size(256, 256)), None);
    }

    #[test]
    fn the_budget_and_the_source_bound_the_size_and_it_is_said() {
        let budget = proposal(size(2448, 2048), &[10.0; 10]);
        assert!(cost(budget.size) <= 16.0 && cost(budget.size) > 15.0, "{}", budget.size);
        assert!(budget.reason().contains("--image-size"), "{}", budget.reason());
        let source = proposal(size(512, 384), &[2.0; 10]);
        assert_eq!(source.size, size(512, 384));
        assert!(source.reason().contains("no more pixels"), "{}", source.reason());
        // A source below 256x256 is enlarged as it always was.
        assert_eq!(proposal(size(96, 80), &[2.0; 10]).size, size(288, 240));
    }

    #[test]
    fn one_crumb_in_ten_defects_does_not_decide() {
        let mut widths = vec![60.0; 10];
        widths[3] = 1.0;
        assert_eq!(proposal(size(1024, 1024), &widths).size, size(256, 256));
    }

    #[test]
    fn an_aspect_that_no_size_keeps_is_an_error_only_where_a_size_was_left_to_the_program() {
        let settings = Settings::preset(crate::config::Preset::Fast);
        let auto = Settings { auto_size: true, ..settings.clone() };
        let long = proposal(size(9000, 64), &[2.0; 3]);
        let error = long.settle(&auto, &Silent).unwrap_err().to_string();
        assert!(error.contains("9000x64") && error.contains("--region"), "{error}");
        assert_eq!(long.settle(&settings, &Silent).unwrap(), settings);
        assert_eq!(long.warning(settings.size), None);
        assert_eq!(proposal(size(3200, 100), &[]).settle(&auto, &Silent).unwrap().size, size(1360, 48));
    }

    #[test]
    fn a_scratch_counts_by_its_breadth_however_it_lies_and_only_inside_the_region() {
        let mut mask = Mask::empty(size(64, 64));
        for i in 0..40 {
            for j in 0..3 {
                mask.flags_mut()[(10 + i) * 64 + 10 + i + j] = true;
            }
        }
        mask.flags_mut()[0] = true;
        let whole = Rectangle { x: 0, y: 0, width: 64, height: 64 };
        let width = largest_width(&mask, whole).unwrap();
        assert!((2.5..3.5).contains(&width), "{width}");
        let corner = Rectangle { x: 0, y: 0, width: 8, height: 8 };
        assert_eq!(largest_width(&mask, corner), Some(1.0));
        assert_eq!(largest_width(&mask, Rectangle { x: 50, ..corner }), None);
    }

    #[test]
    fn the_ground_under_a_pixel_is_as_wide_as_high_where_the_aspect_is_kept() {
        let proposal = proposal(size(2448, 2048), &[25.0; 10]);
        assert!((proposal.stretch(proposal.size) - 1.0).abs() < 0.01);
        assert!((proposal.stretch(size(256, 256)) - 2448.0 / 2048.0).abs() < 1e-6);
    }
}
