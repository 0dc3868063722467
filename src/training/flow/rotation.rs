//! The fixed rotation of a block, on the rows of a tile.

use super::product::{Matrix, product};

/// Rows that are worked on together.
const GROUP: usize = 8;

/// A rotation Q, `[C, C]`.
pub(super) enum Rotation<'a> {
    /// Of all channels among each other.
    Whole(&'a [f32]),
    /// Of few: every [`GROUP`] rows have channels of their own, in order.
    Groups(Vec<Group>),
}

/// Rows of a rotation and the only channels that they look at, which no other rows do.
pub(super) struct Group {
    channels: Vec<usize>,
    /// `[channel][row]`, zero beyond their counts.
    by_channel: [[f32; GROUP]; GROUP],
    /// `[row][channel]`, the same.
    by_row: [[f32; GROUP]; GROUP],
}

impl<'a> Rotation<'a> {
    /// What a matrix is, row after row.
    pub(super) fn of(matrix: &'a [f32], channels: usize) -> Self {
        let groups: Option<Vec<Group>> =
            matrix.chunks(GROUP * channels).map(|rows| Group::of(rows, channels)).collect();
        let mut seen = vec![false; channels];
        let apart = |groups: &Vec<Group>| {
            groups.iter().flat_map(|group| &group.channels).all(|&channel| !std::mem::replace(&mut seen[channel], true))
        };
        groups.filter(apart).map_or(Self::Whole(matrix), Self::Groups)
    }

    /// `out = x · Qᵀ` for vectors of C values one behind the other.
    #[inline(always)]
    pub(super) fn apply(&self, x: &[f32], out: &mut [f32], channels: usize) {
        match self {
            Self::Whole(matrix) => {
                let x = Matrix::new(x, x.len() / channels, channels, channels);
                product(out, channels, false, x, Matrix::new(matrix, channels, channels, channels).t());
            }
            Self::Groups(groups) => {
                for (x, out) in x.chunks_exact(channels).zip(out.chunks_exact_mut(channels)) {
                    for (group, out) in groups.iter().zip(out.chunks_mut(GROUP)) {
                        let sums = sum(&group.by_channel, group.channels.iter().map(|&channel| x[channel]));
                        out.copy_from_slice(&sums[..out.len()]);
                    }
                }
            }
        }
    }

    /// `out = x · Q`, the other way.
    #[inline(always)]
    pub(super) fn apply_back(&self, x: &[f32], out: &mut [f32], channels: usize) {
        match self {
            Self::Whole(matrix) => {
                let x = Matrix::new(x, x.len() / channels, channels, channels);
                product(out, channels, false, x, Matrix::new(matrix, channels, channels, channels));
            }
            Self::Groups(groups) => {
                for (x, out) in x.chunks_exact(channels).zip(out.chunks_exact_mut(channels)) {
                    for (group, x) in groups.iter().zip(x.chunks(GROUP)) {
                        let sums = sum(&group.by_row, x.iter().copied());
                        group.channels.iter().zip(sums).for_each(|(&channel, sum)| out[channel] = sum);
                    }
                }
            }
        }
    }
}

/// The rows of `weights`, each by its value.
#[inline(always)]
fn sum(weights: &[[f32; GROUP]; GROUP], values: impl Iterator<Item = f32>) -> [f32; GROUP] {
    let mut sums = [0.0; GROUP];
    for (weights, value) in weights.iter().zip(values) {
        sums.iter_mut().zip(weights).for_each(|(sum, weight)| *sum += weight * value);
    }
    sums
}

impl Group {
    /// Of some rows; none where they look at more channels than they are.
    fn of(rows: &[f32], all: usize) -> Option<Self> {
        let rows: Vec<&[f32]> = rows.chunks(all).collect();
        let channels: Vec<usize> = (0..all).filter(|&channel| rows.iter().any(|row| row[channel] != 0.0)).collect();
        if channels.len() > rows.len() {
            return None;
        }
        let mut group = Self { channels, by_channel: [[0.0; GROUP]; GROUP], by_row: [[0.0; GROUP]; GROUP] };
        for (i, row) in rows.iter().enumerate() {
            for (j, &channel) in group.channels.iter().enumerate() {
                (group.by_channel[j][i], group.by_row[i][j]) = (row[channel], row[channel]);
            }
        }
        Some(group)
    }
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};

    use super::super::parameters::rotation;
    use super::*;

    #[test]
    fn groups_turn_vectors_as_the_whole_matrix_does_and_back() {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(3);
        for (channels, group) in [(24, 8), (21, 8), (13, 4), (9, 9)] {
            let matrix = rotation(channels, group, &mut rng);
            let rotation = Rotation::of(&matrix, channels);
            assert_eq!(
                matches!(rotation, Rotation::Groups(_)),
                group < channels,
                "{channels} channels, {group} in a group"
            );
            let x: Vec<f32> = (0..3 * channels).map(|_| rng.random_range(-1.0..1.0)).collect();
            let near = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5);
            let apply = |rotation: &Rotation<'_>| {
                let (mut there, mut back) = (vec![f32::NAN; x.len()], vec![f32::NAN; x.len()]);
                rotation.apply(&x, &mut there, channels);
                rotation.apply_back(&there, &mut back, channels);
                (there, back)
            };
            let (there, back) = apply(&rotation);
            assert!(near(&there, &apply(&Rotation::Whole(&matrix)).0) && near(&back, &x));
            assert!(!near(&there, &x), "nothing was turned");
        }
    }

    #[test]
    fn rows_that_share_a_channel_are_no_groups() {
        let mut matrix = vec![0.0; 16 * 16];
        (0..16).for_each(|row| matrix[row * 16] = 1.0);
        assert!(matches!(Rotation::of(&matrix, 16), Rotation::Whole(_)));
    }
}
