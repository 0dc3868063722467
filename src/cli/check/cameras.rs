//! The cameras: their pipelines can be built, and they deliver.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use super::Trial;
use crate::config::CameraConfig;
use crate::inspection::Size;
use crate::line::capture::{self, Capture, CaptureEvent};

/// Events waiting at most; beyond, the cameras shed pictures.
const QUEUE: usize = 64;

/// What a camera has said so far.
#[derive(Debug, Default)]
struct Heard {
    up: bool,
    frame: Option<(Size, Duration)>,
    trouble: Option<String>,
}

impl Heard {
    fn is_known(&self) -> bool {
        self.frame.is_some() || self.trouble.is_some()
    }
}

/// Builds every pipeline; with patience, opens the cameras together and waits so long for a frame
/// of each.
pub(super) fn check(cameras: &[CameraConfig], patience: Option<Duration>) -> Vec<Trial> {
    let mut trials = Vec::new();
    let mut buildable = Vec::new();
    for camera in cameras {
        let name = format!("camera {} pipeline", camera.name);
        match capture::check(camera) {
            Ok(()) => {
                trials.push(Trial::ok(name, format!("`{}` can be built", camera.pipeline)));
                buildable.push(camera.clone());
            }
            Err(error) => trials.push(Trial::error(name, error)),
        }
    }
    if let Some(patience) = patience.filter(|_| !buildable.is_empty()) {
        trials.extend(open(&buildable, patience));
    }
    trials
}

fn open(cameras: &[CameraConfig], patience: Duration) -> Vec<Trial> {
    let (events, heard) = sync_channel(QUEUE);
    let started = Instant::now();
    let capture = match Capture::start(cameras, &events) {
        Ok(capture) => capture,
        Err(error) => return vec![Trial::error("cameras", error)],
    };
    drop(events);
    let heard_of = listen(&heard, cameras, started, patience);
    // Stopping waits for room in the channel, so somebody must go on reading.
    std::thread::scope(|scope| {
        scope.spawn(|| capture.stop());
        heard.iter().for_each(drop);
    });
    cameras
        .iter()
        .map(|camera| {
            let name = format!("camera {}", camera.name);
            judged(camera, name, heard_of.get(camera.name.as_str()), patience)
        })
        .collect()
}

fn listen(
    events: &Receiver<CaptureEvent>,
    cameras: &[CameraConfig],
    started: Instant,
    patience: Duration,
) -> BTreeMap<String, Heard> {
    let mut heard: BTreeMap<String, Heard> =
        cameras.iter().map(|camera| (camera.name.clone(), Heard::default())).collect();
    while !heard.values().all(Heard::is_known) {
        let left = patience.saturating_sub(started.elapsed());
        let Ok(event) = events.recv_timeout(left) else { break };
        let mut of = |camera: &str, note: &dyn Fn(&mut Heard)| {
            if let Some(heard) = heard.get_mut(camera).filter(|heard| heard.frame.is_none()) {
                note(heard);
            }
        };
        match event {
            CaptureEvent::Up { camera } => of(&camera, &|heard| heard.up = true),
            CaptureEvent::Frame(frame) => of(&frame.camera, &|heard| {
                heard.frame = Some((frame.picture.size(), started.elapsed()));
                heard.trouble = None;
            }),
            CaptureEvent::Lost(_) => {}
            CaptureEvent::Down { camera, reason } => of(&camera, &|heard| heard.trouble = Some(reason.clone())),
            CaptureEvent::Ended { camera } => of(&camera, &|heard| {
                heard
                    .trouble
                    .get_or_insert_with(|| "its stream ended without a frame: is there a picture in it?".into());
            }),
        }
    }
    heard
}

fn judged(camera: &CameraConfig, name: String, heard: Option<&Heard>, patience: Duration) -> Trial {
    let waited = format!("{} s", patience.as_secs_f64());
    match heard {
        Some(Heard { frame: Some((size, after)), .. }) => match camera.region_of_interest {
            Some(region) if !region.fits(*size) => Trial::fail(
                name,
                format!(
                    "frames are {size}, the region of interest ({}, {}, {} x {}) leaves them: make it smaller",
                    region.x, region.y, region.width, region.height
                ),
            ),
            _ => Trial::ok(name, format!("first frame after {:.1} s, {size}", after.as_secs_f64())),
        },
        Some(Heard { trouble: Some(reason), .. }) => Trial::fail(name, reason.clone()),
        Some(Heard { up: true, .. }) => {
            Trial::ok(name, format!("plays, but gave no frame within {waited}: fine where a trigger is waited for"))
        }
        _ => Trial::fail(name, format!("no frame within {waited}: check its address, cable and power")),
    }
}
