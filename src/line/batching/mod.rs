//! Frames of all cameras -> batches, closed by size or by age. Neither clock nor channel.
