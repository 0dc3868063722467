//! What a frame costs on its way through the scoring path, beside its time.

use linegate::decision::Decider;
use linegate::inspection::{CameraPicture, PixelFormat, Size, Verdict, YuvColour, YuvMatrix};
use linegate::scoring::{Model, PictureFitter, SessionOptions};
use linegate::telemetry::{CountingAllocator, allocations};

use crate::support::parts::hardly_trained;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

#[test]
fn a_frame_that_is_accepted_is_scaled_scored_and_decided_without_an_allocation_once_the_line_is_warm() {
    let folder = tempfile::tempdir().unwrap();
    let mut bundle = hardly_trained(folder.path());
    // Whatever two steps have learned: an accepted part is what this is about.
    bundle.manifest.calibration.image.normal = f32::MAX;
    bundle.manifest.calibration.minimum_area = 4;
    let mut model = Model::load(&bundle, &SessionOptions { threads: 1, ..SessionOptions::default() }).unwrap();

    let (size, chroma) = (Size { width: 640, height: 480 }, Size { width: 320, height: 240 });
    let colour = YuvColour { matrix: YuvMatrix::Bt709, full_range: false };
    let format = PixelFormat::Yuv { chroma, interleaved: true, colour };
    let bytes = (0..640 * 480 * 3 / 2).map(|at: usize| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let frame = CameraPicture::new(size, format, bytes).unwrap();
    let (mut fitter, mut decider) = (PictureFitter::new(), Decider::new());
    let manifest = bundle.manifest.clone();
    let mut stages = || {
        let before = allocations();
        fitter.fit_into(&frame, &manifest.preprocessing, model.place(0)).unwrap();
        let fitted = allocations();
        assert!(model.score_placed(0..1).is_ok());
        let scored = allocations();
        let outcome = decider.decide(model.scored(0).unwrap(), &manifest, size);
        let decided = allocations();
        assert_eq!(outcome.verdict, Verdict::Accept);
        [fitted - before, scored - fitted, decided - scored]
    };
    let [fitted, _, decided] = stages();
    assert!(fitted > 0 && decided > 0, "the first frame makes room, and that is counted");
    stages();
    assert_eq!(stages(), [0, 0, 0]);
}
