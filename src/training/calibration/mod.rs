//! What held-out normals teach: level constants, boundaries, thresholds.
