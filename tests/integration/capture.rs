//! Tests of capture: real GStreamer on pictures that the tests make.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use image::{Rgb, RgbImage};
use linegate::config::CameraConfig;
use linegate::inspection::{CameraPicture, Frame, NotInspected, PartSource, Size};
use linegate::line::capture::{Capture, CaptureError, CaptureEvent, LaunchDescription};

use crate::support::camera;

/// Longest that a test waits for one event: far more than any machine needs.
const PATIENCE: Duration = Duration::from_mins(1);

fn folder(path: &Path, more: &str) -> CameraConfig {
    camera("folder", &format!("location = {:?}\nrate = 100\n{more}", path.to_str().unwrap()))
}

fn start(camera: CameraConfig) -> (Capture, Receiver<CaptureEvent>) {
    let (sender, receiver) = sync_channel(256);
    (Capture::start(&[camera], &sender).unwrap(), receiver)
}

/// Every event until the camera ends.
fn run_to_end(camera: CameraConfig) -> Vec<CaptureEvent> {
    let (capture, receiver) = start(camera);
    let mut events = Vec::new();
    loop {
        let event = receiver.recv_timeout(PATIENCE).expect("the camera ends");
        let ended = matches!(event, CaptureEvent::Ended { .. });
        events.push(event);
        if ended {
            break;
        }
    }
    capture.stop();
    events
}

fn frames(events: &[CaptureEvent]) -> Vec<&Frame> {
    events.iter().filter_map(|e| if let CaptureEvent::Frame(frame) = e { Some(frame) } else { None }).collect()
}

fn lost(events: &[CaptureEvent]) -> Vec<(u64, NotInspected, String)> {
    let one = |e: &CaptureEvent| match e {
        CaptureEvent::Lost(l) => Some((l.id.0, l.cause, l.part_id.as_deref().unwrap_or_default().to_owned())),
        _ => None,
    };
    events.iter().filter_map(one).collect()
}

/// A picture whose every pixel tells its place.
fn chart(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| Rgb([(x * 3) as u8, (y * 5) as u8, (x ^ y) as u8]))
}

fn tear(path: &Path) {
    let bytes = std::fs::read(path).unwrap();
    std::fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
}

#[test]
fn frames_of_a_test_pattern_come_in_order_with_increasing_numbers() {
    let events = run_to_end(camera("test", "width = 64\nheight = 48\nrate = 100\nnum_buffers = 20"));
    let frames = frames(&events);
    assert_eq!(frames.iter().map(|f| f.id.0).collect::<Vec<_>>(), (1..=20).collect::<Vec<_>>());
    assert!(frames.iter().all(|f| f.picture.size() == Size { width: 64, height: 48 }));
    assert!(frames.windows(2).all(|w| w[0].captured.monotonic <= w[1].captured.monotonic));
    assert!(frames.iter().all(|f| f.captured.utc_us > 1_600_000_000_000_000));
    assert!(frames.iter().all(|f| f.part_id.is_none() && f.part_source == PartSource::Counter));
    assert!(matches!(events.first(), Some(CaptureEvent::Up { .. })));
    assert!(lost(&events).is_empty());
}

#[test]
fn a_still_picture_is_painted_once_and_each_time_it_is_sent_is_a_frame_of_its_own() {
    let snow = |pipeline| {
        let events =
            run_to_end(camera(pipeline, "pattern = \"snow\"\nwidth = 64\nheight = 48\nrate = 100\nnum_buffers = 10"));
        let frames = frames(&events);
        assert_eq!(frames.iter().map(|f| f.id.0).collect::<Vec<_>>(), (1..=10).collect::<Vec<_>>());
        assert!(frames.windows(2).all(|w| w[0].captured.monotonic <= w[1].captured.monotonic));
        frames.iter().map(|f| f.picture.to_rgb().rgb().to_vec()).collect::<Vec<_>>()
    };
    assert!(snow("still").windows(2).all(|pair| pair[0] == pair[1]));
    assert!(snow("test").windows(2).all(|pair| pair[0] != pair[1]));
}

#[test]
fn frames_stay_in_the_cameras_buffers_until_many_are_held_and_are_copied_from_then_on() {
    let live = |pattern| {
        camera("test", &format!("pattern = \"{pattern}\"\nwidth = 66\nheight = 50\nrate = 100\nformat = \"I420\""))
    };
    let next = |receiver: &Receiver<CaptureEvent>| loop {
        if let CaptureEvent::Frame(frame) = receiver.recv_timeout(PATIENCE).expect("the camera goes on") {
            return frame.picture;
        }
    };
    let (capture, receiver) = start(live("smpte"));
    let held: Vec<_> = (0..8).map(|_| next(&receiver)).collect();
    let lent = held.iter().filter(|picture| picture.is_lent()).count();
    assert!(lent > 1 && lent < 8 && held[0].is_lent() && !held[7].is_lent(), "{lent} of 8 lent");
    // The noise in its corner differs; the bars do not, wherever the pixels stand.
    let bars = |picture: &CameraPicture| picture.to_rgb().rgb()[..66 * 3 * 20].to_vec();
    assert!(held.iter().all(|picture| bars(picture) == bars(&held[0])));
    drop(held);
    // What came in the meantime was copied.
    assert!((0..300).any(|_| next(&receiver).is_lent()), "a buffer that came back is lent again");
    capture.stop();
    for (lent_buffers, lent) in [(0, 0), (1024, 8)] {
        let (capture, receiver) = start(CameraConfig { lent_buffers, ..live("smpte") });
        let held: Vec<_> = (0..8).map(|_| next(&receiver)).collect();
        assert_eq!(held.iter().filter(|picture| picture.is_lent()).count(), lent);
        capture.stop();
    }
}

#[test]
fn png_pixels_arrive_exactly_even_where_the_width_is_no_multiple_of_four() {
    let directory = tempfile::tempdir().unwrap();
    let chart = chart(37, 23);
    chart.save(directory.path().join("part.png")).unwrap();
    let events = run_to_end(folder(directory.path(), ""));
    let frames = frames(&events);
    assert_eq!(frames.len(), 1);
    assert_eq!(frames[0].picture.size(), Size { width: 37, height: 23 });
    assert_eq!(frames[0].picture.to_rgb().rgb(), chart.as_raw().as_slice());
}

#[test]
fn a_folder_of_mixed_formats_and_sizes_keeps_order_names_and_colours() {
    let directory = tempfile::tempdir().unwrap();
    let names = ["a.png", "b.jpg", "c.bmp", "d.tiff", "e.jpeg", "f.png", "g.tif", "h.png"];
    let mut sizes = Vec::new();
    for (index, name) in names.iter().enumerate() {
        let (width, height) = (30 + 7 * index as u32, 20 + 3 * index as u32);
        let colour = Rgb([200 - 20 * index as u8, 10 + 25 * index as u8, 90]);
        RgbImage::from_pixel(width, height, colour).save(directory.path().join(name)).unwrap();
        sizes.push((width as usize, height as usize));
    }
    std::fs::write(directory.path().join("notes.txt"), "no picture").unwrap();
    let events = run_to_end(folder(directory.path(), ""));
    let frames = frames(&events);
    assert!(lost(&events).is_empty(), "{:?}", lost(&events));
    assert_eq!(frames.iter().map(|f| f.part_id.as_deref().unwrap()).collect::<Vec<_>>(), names);
    assert_eq!(frames.iter().map(|f| f.id.0).collect::<Vec<_>>(), (1..=8).collect::<Vec<_>>());
    assert_eq!(frames.iter().map(|f| (f.picture.size().width, f.picture.size().height)).collect::<Vec<_>>(), sizes);
    for (index, frame) in frames.iter().enumerate() {
        let expected = [200 - 20 * index as u8, 10 + 25 * index as u8, 90];
        // JPEG's colours go through YCbCr and back.
        let tolerance = if frame.part_id.as_deref().unwrap().contains(".jp") { 4 } else { 0 };
        for (got, expected) in frame.picture.to_rgb().pixel(9, 9).iter().zip(expected) {
            assert!(got.abs_diff(expected) <= tolerance, "{:?}: {got} is not {expected}", frame.part_id);
        }
    }
}

#[test]
fn a_torn_picture_among_good_ones_is_lost_and_the_later_ones_come() {
    for extension in ["jpg", "png", "bmp", "tiff"] {
        let directory = tempfile::tempdir().unwrap();
        for index in 0..5 {
            chart(64, 48).save(directory.path().join(format!("{index}.{extension}"))).unwrap();
        }
        tear(&directory.path().join(format!("2.{extension}")));
        std::fs::write(directory.path().join(format!("3.{extension}")), []).unwrap();
        let events = run_to_end(folder(directory.path(), ""));
        let arrived: Vec<_> = frames(&events).iter().map(|f| f.id.0).collect();
        assert_eq!(arrived, [1, 2, 5], "{extension}: {events:?}");
        let gone = [3, 4].map(|id| (id, NotInspected::Lost, format!("{}.{extension}", id - 1)));
        // A frame torn so that only the decoder sees it is missed when a later one arrives.
        let mut lost = lost(&events);
        lost.sort_by_key(|l| l.0);
        assert_eq!(lost, gone, "{extension}");
    }
}

#[test]
fn a_picture_broken_in_the_middle_is_lost_or_decoded_but_never_stops_the_camera() {
    let directory = tempfile::tempdir().unwrap();
    for index in 0..4 {
        chart(64, 48).save(directory.path().join(format!("{index}.png"))).unwrap();
    }
    let broken = directory.path().join("1.png");
    let mut bytes = std::fs::read(&broken).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 40].fill(0x55);
    std::fs::write(&broken, bytes).unwrap();
    let events = run_to_end(folder(directory.path(), ""));
    assert_eq!(frames(&events).iter().map(|f| f.id.0).collect::<Vec<_>>(), [1, 3, 4], "{events:?}");
    assert_eq!(lost(&events), [(2, NotInspected::Lost, "1.png".into())]);
}

#[test]
fn numbering_goes_on_when_a_stream_that_must_not_end_begins_again() {
    let directory = tempfile::tempdir().unwrap();
    for index in 0..3 {
        chart(16, 16).save(directory.path().join(format!("{index}.png"))).unwrap();
    }
    let (capture, receiver) = start(CameraConfig { ends: false, ..folder(directory.path(), "") });
    let mut seen = Vec::new();
    let mut downs = 0;
    while seen.len() < 7 {
        match receiver.recv_timeout(PATIENCE).unwrap() {
            CaptureEvent::Frame(frame) => seen.push((frame.id.0, frame.part_id.unwrap().to_string())),
            CaptureEvent::Down { .. } => downs += 1,
            CaptureEvent::Up { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    capture.stop();
    assert_eq!(downs, 2);
    let expected: Vec<_> = (0..7).map(|n| (n + 1, format!("{}.png", n % 3))).collect();
    assert_eq!(seen, expected);
}

#[test]
fn a_looping_folder_goes_on_without_a_gap() {
    let directory = tempfile::tempdir().unwrap();
    for index in 0..2 {
        chart(16, 16).save(directory.path().join(format!("{index}.png"))).unwrap();
    }
    let (capture, receiver) = start(folder(directory.path(), "loop = true"));
    let mut ids = Vec::new();
    while ids.len() < 5 {
        match receiver.recv_timeout(PATIENCE).unwrap() {
            CaptureEvent::Frame(frame) => ids.push(frame.id.0),
            CaptureEvent::Up { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    capture.stop();
    assert_eq!(ids, [1, 2, 3, 4, 5]);
}

#[test]
fn a_camera_that_cannot_start_is_down_with_its_reason_and_is_tried_again() {
    let directory = tempfile::tempdir().unwrap();
    let (capture, receiver) = start(folder(directory.path(), ""));
    for _ in 0..2 {
        let CaptureEvent::Down { reason, .. } = receiver.recv_timeout(PATIENCE).unwrap() else { panic!("not down") };
        assert!(reason.contains("holds no"), "{reason}");
    }
    // The folder fills: the camera comes by itself.
    chart(16, 16).save(directory.path().join("late.png")).unwrap();
    loop {
        match receiver.recv_timeout(PATIENCE).unwrap() {
            CaptureEvent::Frame(frame) => break assert_eq!(frame.id.0, 1),
            CaptureEvent::Down { .. } | CaptureEvent::Up { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    capture.stop();
}

#[test]
fn a_silent_camera_is_taken_down_by_its_watchdog() {
    let silent = CameraConfig { watchdog_ms: Some(300), ..camera("test", "rate = 1\nnum_buffers = 1000") };
    // One frame a second and a watchdog of 300 ms: silence follows every frame.
    let (capture, receiver) = start(silent);
    let reason = loop {
        if let CaptureEvent::Down { reason, .. } = receiver.recv_timeout(PATIENCE).unwrap() {
            break reason;
        }
    };
    capture.stop();
    assert_eq!(reason, "no frame for 300 ms");
}

#[test]
fn every_number_comes_out_once_however_slow_the_reader_and_whenever_it_stops() {
    let (sender, receiver) = sync_channel(2);
    let fast = camera("test", "width = 64\nheight = 48\nrate = 500");
    let capture = Capture::start(&[fast], &sender).unwrap();
    drop(sender);
    let reader = std::thread::spawn(move || {
        let mut numbers = Vec::new();
        let mut shed = 0;
        for event in receiver {
            match event {
                CaptureEvent::Frame(frame) => {
                    numbers.push(frame.id.0);
                    std::thread::sleep(Duration::from_millis(10));
                }
                CaptureEvent::Lost(lost) => {
                    numbers.push(lost.id.0);
                    shed += u64::from(lost.cause == NotInspected::Shed);
                }
                _ => {}
            }
        }
        (numbers, shed)
    });
    std::thread::sleep(Duration::from_millis(700));
    capture.stop();
    let (numbers, shed) = reader.join().unwrap();
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
    assert!(shed > 0, "500 frames a second into a reader that takes 100 must shed");
}

#[test]
fn a_video_file_plays_and_keeps_every_frame() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("film.avi");
    let made = std::process::Command::new("gst-launch-1.0")
        .args(["-q", "videotestsrc", "num-buffers=10", "!", "video/x-raw,width=66,height=50,framerate=50/1", "!"])
        .args(["jpegenc", "!", "avimux", "!", "filesink"])
        .arg(format!("location={}", file.display()))
        .status()
        .unwrap();
    assert!(made.success());
    let events = run_to_end(camera("file", &format!("location = {:?}", file.to_str().unwrap())));
    assert_eq!(frames(&events).iter().map(|f| f.id.0).collect::<Vec<_>>(), (1..=10).collect::<Vec<_>>());
    assert!(frames(&events).iter().all(|f| f.picture.size() == Size { width: 66, height: 50 }));
}

#[test]
fn a_launch_file_of_the_users_own_works() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("own.launch");
    std::fs::write(&file, "# parameter count=3  frames\nvideotestsrc num-buffers={count} ! identity name=stamp")
        .unwrap();
    let events = run_to_end(camera(file.to_str().unwrap(), ""));
    assert_eq!(frames(&events).len(), 3);
}

fn refusal(camera: CameraConfig) -> String {
    let (sender, _receiver) = sync_channel(1);
    let error = Capture::start(&[camera], &sender).unwrap_err();
    match std::error::Error::source(&error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

#[test]
fn wrong_parameters_are_refused_with_what_the_description_takes() {
    let text = refusal(camera("folder", "rate = 5"));
    assert!(text.contains("`location` must be given") && text.contains("loop=false"), "{text}");
    let text = refusal(camera("folder", "location = 'x'\nspeed = 5"));
    assert!(text.contains("no parameter `speed`") && text.contains("rate=5"), "{text}");
    let text = refusal(camera("test", "width = [1]"));
    assert!(text.contains("array"), "{text}");
    let text = refusal(camera("/nowhere/x.launch", ""));
    assert!(text.contains("built in are: folder, file, test"), "{text}");
    let text = refusal(camera("test", "pattern = 'no-such-pattern'"));
    assert!(text.contains("no-such-pattern"), "{text}");
}

#[test]
fn a_parameter_cannot_become_an_element() {
    let values = |text: &str| BTreeMap::from([("location".to_owned(), toml::Value::String(text.into()))]);
    let description = LaunchDescription::find("folder").unwrap();
    for evil in [r#"a" ! filesink location="b"#, "a\\", "a\nb", "a\" "] {
        assert!(matches!(description.render(&values(evil)), Err(CaptureError::Parameter { .. })), "{evil:?}");
    }
    // Harmless in quotes: GStreamer takes it as the folder's name and says that there is none.
    let events = start(camera("folder", "location = 'x ! filesink location=injected ! {rate}'"));
    let CaptureEvent::Down { reason, .. } = events.1.recv_timeout(PATIENCE).unwrap() else { panic!("not down") };
    assert!(reason.contains("x ! filesink location=injected ! {rate} cannot be read"), "{reason}");
    assert!(!Path::new("injected").exists());
}

#[test]
fn every_built_in_description_declares_what_it_uses() {
    for name in LaunchDescription::built_in() {
        let description = LaunchDescription::find(name).unwrap();
        assert!(!description.parameters().is_empty(), "{name}");
        assert!(description.parameters().iter().all(|p| !p.meaning.is_empty()), "{name}");
    }
    let cases = [
        ("fakesrc num-buffers={n}", "not declared"),
        ("# parameter n=1 x\nfakesrc", "not used"),
        ("# parameter n=1 x\nfakesrc name=\"{n}\"", "inside quotes"),
        ("# nothing", "no element"),
    ];
    for (text, problem) in cases {
        let error = LaunchDescription::parse("own", text).unwrap_err().to_string();
        assert!(error.contains(problem), "{error}");
    }
}
