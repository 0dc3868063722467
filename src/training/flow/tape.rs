//! What the forward pass keeps for the backward pass, one tile of pixels at a time.

use super::FlowShape;

/// Pixels in a tile: small enough that a block's values stay in the cache between its products.
pub(super) const TILE: usize = 64;

/// Places of a tile's values inside its part of the tape, floats.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    channels: usize,
    second: usize,
    hidden: usize,
    blocks: usize,
}

/// A block's values on the tape, each `[TILE, width]` in packed rows.
pub(super) struct BlockTape<'a> {
    /// Input, `[TILE, C]`.
    pub(super) x: &'a mut [f32],
    /// Hidden layer after the rectifier, `[TILE, hidden]`.
    pub(super) hidden: &'a mut [f32],
    /// `tanh` of the scale part, `[TILE, C/2]`.
    pub(super) tanh: &'a mut [f32],
    /// `e^s`, `[TILE, C/2]`.
    pub(super) scale: &'a mut [f32],
    /// The changed channels, `[TILE, C/2]`.
    pub(super) changed: &'a mut [f32],
}

impl Layout {
    pub(super) fn new(shape: &FlowShape) -> Self {
        Self { channels: shape.channels, second: shape.second(), hidden: shape.hidden, blocks: shape.blocks }
    }

    fn block_length(&self) -> usize {
        TILE * (self.channels + self.hidden + 3 * self.second)
    }

    /// Floats of one tile: every block, then the flow's output `[TILE, C]`.
    pub(super) fn tile_length(&self) -> usize {
        self.blocks * self.block_length() + TILE * self.channels
    }

    /// A block's values and, behind them, the input of the next block or the flow's output.
    pub(super) fn block<'a>(&self, tape: &'a mut [f32], block: usize) -> (BlockTape<'a>, &'a mut [f32]) {
        let (_, rest) = tape.split_at_mut(block * self.block_length());
        let (x, rest) = rest.split_at_mut(TILE * self.channels);
        let (hidden, rest) = rest.split_at_mut(TILE * self.hidden);
        let (tanh, rest) = rest.split_at_mut(TILE * self.second);
        let (scale, rest) = rest.split_at_mut(TILE * self.second);
        let (changed, rest) = rest.split_at_mut(TILE * self.second);
        (BlockTape { x, hidden, tanh, scale, changed }, &mut rest[..TILE * self.channels])
    }
}
