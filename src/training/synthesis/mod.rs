//! Defects made from known ones (copy-paste) or from nothing (synthetic).
pub fn invent_defect(normal: &crate::inspection::Picture, rng: &mut impl rand::Rng) -> (crate::inspection::Picture, crate::inspection::Mask) { unimplemented!() }
pub fn paste_defect(d: &crate::inspection::Picture, m: &crate::inspection::Mask, normal: &crate::inspection::Picture, rng: &mut impl rand::Rng) -> Option<(crate::inspection::Picture, crate::inspection::Mask)> { unimplemented!() }
