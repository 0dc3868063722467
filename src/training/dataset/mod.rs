//! Data sets in MVTec layout: `train/good`, `test/good`, `test/DEFECT`, `ground_truth/DEFECT`.
