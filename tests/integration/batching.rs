//! Tests of batching.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use linegate::inspection::{Frame, FrameId, PartSource, Picture, Size, Stamp, TimeSource};
use linegate::line::batching::Batcher;
use proptest::prelude::*;

fn frame(camera: &str, id: u64, at: Instant) -> Frame {
    Frame {
        camera: camera.into(),
        id: FrameId(id),
        part_id: None,
        part_source: PartSource::Counter,
        trigger: None,
        captured: Stamp { monotonic: at, utc_us: 0, source: TimeSource::Arrival },
        deadline: None,
        picture: Arc::new(Picture::from_rgb(Size { width: 1, height: 1 }, vec![0; 3]).unwrap().into()),
    }
}

fn batcher(max_batch: usize, max_wait_ms: u64, queue: usize, cameras: &[&str]) -> Batcher {
    Batcher::new(
        NonZeroUsize::new(max_batch).unwrap(),
        Duration::from_millis(max_wait_ms),
        NonZeroUsize::new(queue).unwrap(),
        cameras.iter().map(|&name| name.into()),
    )
}

#[test]
fn a_full_batch_closes_at_once() {
    let start = Instant::now();
    let mut batcher = batcher(2, 1000, 8, &["a"]);
    batcher.push(frame("a", 1, start), start);
    assert!(batcher.next(start).is_none());
    batcher.push(frame("a", 2, start), start);
    let batch = batcher.next(start).unwrap();
    assert_eq!(batch.frames.len(), 2);
    assert_eq!(batch.closed, start);
    assert!(batcher.is_empty());
}

#[test]
fn a_lonely_frame_waits_exactly_the_configured_time() {
    let start = Instant::now();
    let mut batcher = batcher(4, 10, 8, &["a"]);
    assert_eq!(batcher.wait_until(), None);
    batcher.push(frame("a", 1, start), start);
    let due = start + Duration::from_millis(10);
    assert_eq!(batcher.wait_until(), Some(due));
    assert!(batcher.next(due.checked_sub(Duration::from_nanos(1)).unwrap()).is_none());
    let batch = batcher.next(due).unwrap();
    assert_eq!(batch.frames.len(), 1);
    assert_eq!(batch.frames[0].joined, start);
}

#[test]
fn a_full_queue_sheds_its_oldest_frame_and_touches_no_other_camera() {
    let now = Instant::now();
    let mut batcher = batcher(8, 10, 2, &["a", "b"]);
    batcher.push(frame("b", 1, now), now);
    assert!(batcher.push(frame("a", 1, now), now).is_empty());
    assert!(batcher.push(frame("a", 2, now), now).is_empty());
    let shed = batcher.push(frame("a", 3, now), now);
    assert_eq!(shed.iter().map(|s| (&*s.0.camera, s.0.id.0)).collect::<Vec<_>>(), [("a", 1)]);
    assert_eq!(batcher.len(), 3);
}

#[test]
fn a_fast_camera_cannot_starve_a_slow_one() {
    let now = Instant::now();
    let mut batcher = batcher(2, 0, 100, &["fast", "slow"]);
    for id in 1..=50 {
        batcher.push(frame("fast", id, now), now);
    }
    batcher.push(frame("slow", 1, now), now);
    let batch = batcher.next(now).unwrap();
    assert!(batch.frames.iter().any(|f| &*f.frame.camera == "slow"));
}

#[test]
fn a_frame_behind_a_full_batch_joins_when_that_batch_closes() {
    let start = Instant::now();
    let mut batcher = batcher(1, 0, 8, &["a"]);
    batcher.push(frame("a", 1, start), start);
    batcher.push(frame("a", 2, start), start);
    let later = start + Duration::from_millis(30);
    assert_eq!(batcher.next(later).unwrap().frames[0].joined, start);
    let last = later + Duration::from_millis(5);
    assert_eq!(batcher.next(last).unwrap().frames[0].joined, later);
}

#[derive(Debug, Clone)]
enum Step {
    Push(usize),
    Wait(u64),
    Next,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(
        prop_oneof![
            4 => (0..3usize).prop_map(Step::Push),
            2 => (0..30u64).prop_map(Step::Wait),
            2 => Just(Step::Next),
        ],
        0..200,
    )
}

proptest! {
    /// Against any sequence of pushes, pauses and takes.
    #[test]
    fn every_frame_leaves_exactly_once_in_its_cameras_order(
        steps in steps(), max_batch in 1..6usize, wait in 0..20u64, queue in 1..6usize,
    ) {
        const NAMES: [&str; 3] = ["a", "b", "c"];
        let mut now = Instant::now();
        let mut batcher = batcher(max_batch, wait, queue, &NAMES);
        let mut pushed = [0u64; 3];
        // Waiting frames as the rules say: camera -> (id, time pushed), oldest first.
        let mut model: BTreeMap<String, Vec<(u64, Instant)>> = BTreeMap::new();
        let mut left = 0u64;
        for step in steps {
            match step {
                Step::Push(camera) => {
                    pushed[camera] += 1;
                    let shed = batcher.push(frame(NAMES[camera], pushed[camera], now), now);
                    let waiting = model.entry(NAMES[camera].into()).or_default();
                    waiting.push((pushed[camera], now));
                    let expected = if waiting.len() > queue { vec![waiting.remove(0).0] } else { vec![] };
                    prop_assert_eq!(shed.iter().map(|s| s.0.id.0).collect::<Vec<_>>(), expected);
                    left += shed.len() as u64;
                }
                Step::Wait(ms) => now += Duration::from_millis(ms),
                Step::Next => {
                    let total: usize = model.values().map(Vec::len).sum();
                    let oldest = model.values().filter_map(|w| w.first()).map(|w| w.1).min();
                    let due = total >= max_batch
                        || oldest.is_some_and(|oldest| now - oldest >= Duration::from_millis(wait));
                    let batch = batcher.next(now);
                    prop_assert_eq!(batch.is_some(), due && total > 0);
                    let Some(batch) = batch else { continue };
                    prop_assert_eq!(batch.frames.len(), total.min(max_batch));
                    let mut share = BTreeMap::new();
                    for one in &batch.frames {
                        let waiting = model.get_mut(&*one.frame.camera).unwrap();
                        prop_assert_eq!(waiting.remove(0).0, one.frame.id.0);
                        prop_assert!(one.joined <= now);
                        *share.entry(one.frame.camera.to_string()).or_insert(0usize) += 1;
                    }
                    // Fair: who still waits got no less than anybody else, less one.
                    let most = share.values().copied().max().unwrap_or(0);
                    for (camera, waiting) in &model {
                        if !waiting.is_empty() {
                            prop_assert!(share.get(camera).copied().unwrap_or(0) + 1 >= most);
                        }
                    }
                    left += batch.frames.len() as u64;
                }
            }
        }
        while let Some(batch) = batcher.flush(now) {
            left += batch.frames.len() as u64;
        }
        prop_assert_eq!(left, pushed.iter().sum::<u64>());
    }
}

fn with_deadline(id: u64, at: Instant, deadline_ms: u64) -> Frame {
    Frame { deadline: Some(Duration::from_millis(deadline_ms)), ..frame("a", id, at) }
}

fn ids(batch: &linegate::line::batching::Batch) -> Vec<u64> {
    batch.frames.iter().map(|one| one.frame.id.0).collect()
}

#[test]
fn a_batch_closes_early_for_a_deadline_by_what_scoring_took_before() {
    let start = Instant::now();
    let mut batcher = batcher(8, 1000, 8, &["a"]);
    for _ in 0..100 {
        batcher.observe(2, Duration::from_millis(20));
    }
    batcher.push(with_deadline(1, start, 100), start);
    let due = batcher.wait_until().unwrap() - start;
    assert!((Duration::from_millis(88)..Duration::from_millis(91)).contains(&due), "{due:?}");
    batcher.push(with_deadline(2, start, 100), start);
    let due = start + (batcher.wait_until().unwrap() - start);
    assert!(due - start < Duration::from_millis(81), "two frames take twice as long");
    assert!(batcher.next(due.checked_sub(Duration::from_millis(1)).unwrap()).is_none());
    assert_eq!(ids(&batcher.next(due).unwrap()), [1, 2]);
}

#[test]
fn no_more_frames_join_than_the_tightest_deadline_allows() {
    let start = Instant::now();
    let mut batcher = batcher(8, 0, 8, &["a"]);
    for _ in 0..100 {
        batcher.observe(1, Duration::from_millis(10));
    }
    for id in 1..=6 {
        batcher.push(with_deadline(id, start, 35), start);
    }
    assert_eq!(ids(&batcher.next(start).unwrap()), [1, 2, 3]);
}

#[test]
fn a_frame_that_cannot_make_its_deadline_makes_way_for_those_that_can() {
    let start = Instant::now();
    let mut batcher = batcher(2, 0, 8, &["a"]);
    for _ in 0..100 {
        batcher.observe(1, Duration::from_millis(10));
    }
    batcher.push(with_deadline(1, start, 5), start);
    batcher.push(with_deadline(2, start, 8), start);
    batcher.push(with_deadline(3, start, 50), start);
    batcher.push(with_deadline(4, start, 50), start);
    assert_eq!(ids(&batcher.next(start).unwrap()), [3, 4]);
    assert!(batcher.is_empty());

    // Where none can, the one with the most time is tried: the estimate may be wrong.
    batcher.push(with_deadline(5, start, 5), start);
    batcher.push(with_deadline(6, start, 8), start);
    assert_eq!(ids(&batcher.next(start).unwrap()), [6]);
}

#[test]
fn the_newest_frame_is_shed_where_that_is_configured() {
    let now = Instant::now();
    let mut batcher = batcher(8, 10, 2, &["a", "b"]).shedding(linegate::config::ShedPolicy::Newest);
    batcher.push(frame("b", 1, now), now);
    for id in 1..=2 {
        assert!(batcher.push(frame("a", id, now), now).is_empty());
    }
    let shed = batcher.push(frame("a", 3, now), now);
    assert_eq!(shed.iter().map(|s| (&*s.0.camera, s.0.id.0)).collect::<Vec<_>>(), [("a", 3)]);
    assert_eq!(batcher.len(), 3);
}
