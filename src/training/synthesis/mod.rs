//! Defects made from known ones (copy-paste) or from nothing (synthetic).
//!
//! Everything works on pictures at model size and on masks of the same size, and draws all chance
//! from the generator it is given: the same seed makes the same defect. Sizes in pixels are meant
//! for pictures of about 256 pixels a side and scale with the shorter side.
//!
//! Source of copy-paste and of its augmentations: Yao et al., CVPR 2023, arXiv:2207.01463, and the
//! authors' code. Synthetic defects follow the ideas of DRAEM (noise-shaped foreign texture, Zavrtanik
//! et al., ICCV 2021) and CutPaste (Li et al., CVPR 2021), with textures from the picture itself.

mod augment;
mod blend;
mod chance;
mod field;
mod foreground;
mod invent;
mod paste;
mod turn;

pub use augment::{Augmentation, Augmented, augment};
pub use blend::SOFT_EDGE;
pub use foreground::foreground;
pub use invent::{Invention, invent_defect, invent_defect_of_kind};
pub use paste::paste_defect;
pub use turn::{turned, turned_copies};
