//! Scored items in one sorted list that every metric reads.

use super::{Undefined, Unit};

/// Bits of an item's key below its score: eight for the type, the rest for the region.
const REGION_BITS: u32 = 24;

/// Types that can be told apart, 0 being the good pictures.
pub const TYPE_LIMIT: usize = 1 << (32 - REGION_BITS);

/// Which items a metric looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Selection {
    /// All.
    All,
    /// The good pictures (type 0) and those of one defect type.
    Type(u8),
}

impl Selection {
    fn takes(self, kind: u8) -> bool {
        match self {
            Self::All => true,
            Self::Type(only) => kind == 0 || kind == only,
        }
    }
}

/// Collects items. Takes eight bytes an item.
#[derive(Debug)]
pub struct RankingBuilder {
    unit: Unit,
    /// Score in the upper half (bits that order as numbers do), type and region below.
    keys: Vec<u64>,
    /// Type and area of every region.
    regions: Vec<(u8, u64)>,
    normals: [u64; TYPE_LIMIT],
    not_a_number: bool,
}

impl RankingBuilder {
    /// An empty list with room for `capacity` items.
    pub fn new(unit: Unit, capacity: usize) -> Self {
        let keys = Vec::with_capacity(capacity);
        Self { unit, keys, regions: Vec::new(), normals: [0; TYPE_LIMIT], not_a_number: false }
    }

    /// Opens a region (of a whole picture: the picture) of defect type `kind` and gives its number.
    ///
    /// # Errors
    /// [`Undefined::TooManyRegions`].
    pub fn region(&mut self, kind: u8) -> Result<u32, Undefined> {
        let limit = (1 << REGION_BITS) - 1;
        if self.regions.len() >= limit as usize {
            return Err(Undefined::TooManyRegions(limit));
        }
        self.regions.push((kind, 0));
        Ok(self.regions.len() as u32)
    }

    /// Adds an item of a picture of type `kind`; abnormal where it lies in a `region`. Higher
    /// scores are more abnormal; minus zero counts as zero.
    pub fn add(&mut self, score: f32, kind: u8, region: Option<u32>) {
        self.not_a_number |= score.is_nan();
        match region.and_then(|r| self.regions.get_mut(r as usize - 1)) {
            Some(region) => region.1 += 1,
            None => self.normals[usize::from(kind)] += 1,
        }
        let bits = (score + 0.0).to_bits();
        let order = if bits >> 31 == 1 { !bits } else { bits | 1 << 31 };
        let below = u32::from(kind) << REGION_BITS | region.unwrap_or(0);
        self.keys.push(u64::from(order) << 32 | u64::from(below));
    }

    /// Sorts the items.
    ///
    /// # Errors
    /// [`Undefined::NotANumber`].
    pub fn sort(mut self) -> Result<Ranking, Undefined> {
        if self.not_a_number {
            return Err(Undefined::NotANumber);
        }
        self.keys.sort_unstable_by(|a, b| b.cmp(a));
        Ok(Ranking { unit: self.unit, keys: self.keys, regions: self.regions, normals: self.normals })
    }
}

/// Items from the highest score to the lowest.
#[derive(Debug)]
pub struct Ranking {
    unit: Unit,
    keys: Vec<u64>,
    regions: Vec<(u8, u64)>,
    normals: [u64; TYPE_LIMIT],
}

/// What lies at or above one threshold.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Step {
    /// Normal items.
    pub(super) false_positives: u64,
    /// Abnormal items.
    pub(super) true_positives: u64,
    /// Sum over the regions of the share found of each.
    pub(super) overlap: f64,
}

/// How many items there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) normals: u64,
    pub(super) abnormals: u64,
    pub(super) regions: u64,
}

impl Ranking {
    /// A ranking of whole pictures, given as (score, defective).
    ///
    /// # Errors
    /// [`Undefined::NotANumber`], [`Undefined::TooManyRegions`].
    pub fn of_items(unit: Unit, items: impl IntoIterator<Item = (f32, bool)>) -> Result<Self, Undefined> {
        let mut builder = RankingBuilder::new(unit, 0);
        for (score, defective) in items {
            let region = if defective { Some(builder.region(1)?) } else { None };
            builder.add(score, u8::from(defective), region);
        }
        builder.sort()
    }

    /// Counts of a selection.
    ///
    /// # Errors
    /// Nothing normal or nothing abnormal in it: no metric is defined then.
    pub(super) fn totals(&self, selection: Selection) -> Result<Totals, Undefined> {
        let normals = self.normals.iter().enumerate().filter(|(k, _)| selection.takes(*k as u8)).map(|(_, n)| n).sum();
        let taken = || self.regions.iter().filter(|(kind, area)| selection.takes(*kind) && *area > 0);
        let totals = Totals { normals, abnormals: taken().map(|r| r.1).sum(), regions: taken().count() as u64 };
        if totals.abnormals == 0 {
            return Err(Undefined::NothingAbnormal(self.unit));
        }
        if totals.normals == 0 {
            return Err(Undefined::NothingNormal(self.unit));
        }
        Ok(totals)
    }

    /// One step per distinct score, from the highest threshold down.
    pub(super) fn steps(&self, selection: Selection) -> impl Iterator<Item = Step> {
        let shares: Vec<f64> =
            std::iter::once(0.0).chain(self.regions.iter().map(|&(_, area)| 1.0 / area.max(1) as f64)).collect();
        let mut keys =
            self.keys.iter().copied().filter(move |key| selection.takes((key >> REGION_BITS) as u8)).peekable();
        let mut step = Step { false_positives: 0, true_positives: 0, overlap: 0.0 };
        std::iter::from_fn(move || {
            let score = *keys.peek()? >> 32;
            while let Some(key) = keys.next_if(|key| key >> 32 == score) {
                let region = (key & ((1 << REGION_BITS) - 1)) as usize;
                if region == 0 {
                    step.false_positives += 1;
                } else {
                    step.true_positives += 1;
                    step.overlap += shares[region];
                }
            }
            Some(step)
        })
    }
}
