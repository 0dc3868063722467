//! Defects made from known ones (copy-paste) or from nothing (synthetic).
