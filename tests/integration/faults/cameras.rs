//! Cameras that die and come back, each over its real protocol: an RTSP server and Aravis's fake
//! GigE Vision camera, as processes that are killed.

use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use gstreamer_rtsp_server as rtsp;
use gstreamer_rtsp_server::prelude::*;
use linegate::config::{CameraConfig, TriggerMode};
use linegate::inspection::{Frame, Stamp, TimeSource};
use linegate::line::capture::{Capture, CaptureEvent, Trigger};

use super::extent;
use crate::support::free_port;

/// Longest that a test waits for one event.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// How soon a camera must deliver after its return.
pub(super) const RECOVERY: Duration = Duration::from_secs(2);
/// Tells a process that it is the one that runs the test.
pub(super) const ALONE: &str = "LINEGATE_ALONE";
/// What an RTSP server shows: its port, the number of its life.
const SERVE: &str = "LINEGATE_RTSP_SERVER";

/// Runs a test in a process of its own, whose memory and file descriptors are nobody else's.
/// Without the right to open raw sockets: with it, Aravis reads its stream in a way that sees no
/// packet on the loopback interface.
fn alone(test: &str, body: impl FnOnce()) {
    if std::env::var(ALONE).as_deref() == Ok(test) {
        return body();
    }
    let program = std::env::current_exe().unwrap();
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let capabilities = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap().trim();
    let may_open_raw_sockets = u64::from_str_radix(capabilities, 16).unwrap() >> 13 & 1 == 1;
    let mut command = Command::new(if may_open_raw_sockets { "setpriv".into() } else { program.clone() });
    if may_open_raw_sockets {
        command.args(["--bounding-set=-net_raw", "--inh-caps=-net_raw"]).arg(&program);
    }
    let name = format!("faults::cameras::{test}");
    command.args(["--exact", &name, "--nocapture"]).env(ALONE, test);
    assert!(command.status().unwrap().success(), "{name} failed in its own process; see above");
}

/// A process that is killed when it is dropped.
struct Camera(Child);

impl Drop for Camera {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

pub(super) fn camera(pipeline: &str, parameters: &str, watchdog_ms: Option<u64>) -> CameraConfig {
    CameraConfig { watchdog_ms, ends: false, ..crate::support::camera(pipeline, parameters) }
}

/// File descriptors and resident memory in KiB of a process (`self`, or its number).
pub(super) fn held(process: &str) -> (usize, u64) {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let kib = resident.trim().trim_end_matches("kB").trim().parse().unwrap();
    (std::fs::read_dir(format!("/proc/{process}/fd")).unwrap().count(), kib)
}

/// Follows events and keeps the account of numbers.
pub(super) struct Follower {
    events: Receiver<CaptureEvent>,
    pub(super) numbers: Vec<u64>,
    pub(super) downs: u64,
    pub(super) up: bool,
}

impl Follower {
    pub(super) fn new(events: Receiver<CaptureEvent>) -> Self {
        Self { events, numbers: Vec::new(), downs: 0, up: false }
    }

    pub(super) fn next(&mut self) -> CaptureEvent {
        let event = self.events.recv_timeout(PATIENCE).expect("the camera is supervised");
        match &event {
            CaptureEvent::Frame(frame) => self.numbers.push(frame.id.0),
            CaptureEvent::Lost(lost) => self.numbers.push(lost.id.0),
            CaptureEvent::Up { .. } => self.up = true,
            CaptureEvent::Down { .. } => {
                self.downs += u64::from(self.up);
                self.up = false;
            }
            CaptureEvent::Ended { .. } => panic!("the camera must not end"),
        }
        event
    }

    /// Whether nobody is left who could say something, now that the capture has stopped.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn is_over(&self) -> bool {
        loop {
            match self.events.recv_timeout(PATIENCE) {
                Ok(_) => {}
                Err(why) => return why == std::sync::mpsc::RecvTimeoutError::Disconnected,
            }
        }
    }

    pub(super) fn frame(&mut self) -> Frame {
        loop {
            if let CaptureEvent::Frame(frame) = self.next() {
                return frame;
            }
        }
    }
}

/// Kills a camera and starts it again and again. `serve` starts its life of the given number and
/// returns when it answers, `shows` tells whether a frame is of that life.
fn dies_and_returns(
    kills: u64,
    camera: CameraConfig,
    source: TimeSource,
    serve: &dyn Fn(u64) -> Camera,
    shows: &dyn Fn(&Frame, u64) -> bool,
) {
    let mut server = serve(0);
    let (sender, events) = sync_channel(256);
    let capture = Capture::start(&[camera], &sender).unwrap();
    let mut follower = Follower::new(events);
    let mut recoveries = Vec::new();
    let mut before = None;
    for life in 0..=kills {
        if life > 0 {
            drop(server);
            while follower.up {
                if let CaptureEvent::Frame(frame) = follower.next() {
                    assert!(shows(&frame, life - 1), "life {life}: a frame of no life before the gap");
                }
            }
            server = serve(life);
            let returned = Instant::now();
            let frame = follower.frame();
            recoveries.push(returned.elapsed());
            assert!(frame.captured.monotonic + Duration::from_secs(1) > returned, "an old frame shown as new");
            assert!(shows(&frame, life), "life {life}: the first frame is not of this life or wrong in colour or size");
        }
        for _ in 0..5 {
            let frame = follower.frame();
            assert!(shows(&frame, life), "life {life}: a frame of another life, or wrong in colour or size");
            assert_eq!(frame.captured.source, source);
            assert!(frame.captured.monotonic.elapsed() < Duration::from_secs(5));
        }
        assert_eq!(follower.downs, life, "every gap is told once");
        if life == 2 {
            before = Some(held("self"));
        }
    }
    let after = held("self");
    capture.stop();
    drop(sender);
    while let Ok(event) = follower.events.try_recv() {
        if let CaptureEvent::Frame(Frame { id, .. }) = &event {
            follower.numbers.push(id.0);
        } else if let CaptureEvent::Lost(lost) = &event {
            follower.numbers.push(lost.id.0);
        }
    }
    follower.numbers.sort_unstable();
    assert_eq!(follower.numbers, (1..=follower.numbers.len() as u64).collect::<Vec<_>>(), "every number once");
    recoveries.sort_unstable();
    let (median, slowest) = (recoveries[recoveries.len() / 2], recoveries[recoveries.len() - 1]);
    println!(
        "{kills} kills: back after {median:?} (median), {slowest:?} (slowest); file descriptors {:?} -> {}, \
         resident {:?} -> {} KiB",
        before.map(|b| b.0),
        after.0,
        before.map(|b| b.1),
        after.1
    );
    assert!(median < RECOVERY, "back after {median:?}");
    assert!(slowest < 3 * RECOVERY, "back after {slowest:?}");
    if let Some((descriptors, kib)) = before.filter(|_| kills > 2) {
        assert!(after.0 <= descriptors + 4, "file descriptors {descriptors} -> {}", after.0);
        assert!(after.1 <= kib + 24 * 1024, "resident {kib} -> {} KiB", after.1);
    }
}

/// Grey, width and height of a life.
fn look(life: u64) -> (u8, usize, usize) {
    let (width, height) = [(130, 98), (160, 120), (174, 130)][life as usize % 3];
    (40 + 17 * (life % 11) as u8, width, height)
}

fn shows_life(frame: &Frame, life: u64) -> bool {
    let (grey, width, height) = look(life);
    let size = frame.picture.size();
    (size.width, size.height) == (width, height)
        && frame.picture.to_rgb().rgb().iter().all(|&value| value.abs_diff(grey) <= 6)
}

/// Serves until the process is killed.
fn serve_rtsp(task: &str) {
    let (port, life) = task.split_once(' ').unwrap();
    let (grey, width, height) = look(life.parse().unwrap());
    let colour = u32::from_be_bytes([255, grey, grey, grey]);
    gstreamer::init().unwrap();
    let server = rtsp::RTSPServer::new();
    server.set_address("127.0.0.1");
    server.set_service(port);
    let factory = rtsp::RTSPMediaFactory::new();
    factory.set_shared(true);
    factory.set_launch(&format!(
        "( videotestsrc is-live=true pattern=solid-color foreground-color={colour} \
         ! video/x-raw,width={width},height={height},framerate=25/1 ! videoconvert \
         ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=5 ! rtph264pay name=pay0 config-interval=1 )"
    ));
    server.mount_points().unwrap().add_factory("/cam", factory);
    let _attached = server.attach(None).unwrap();
    gstreamer::glib::MainLoop::new(None, false).run();
}

/// Runs the test, or in a process that the test started, the server.
fn rtsp_camera(protocol: &str) {
    if let Ok(task) = std::env::var(SERVE) {
        return serve_rtsp(&task);
    }
    let port = free_port();
    let test = format!("faults::cameras::an_rtsp_server_over_{protocol}_may_die_and_return");
    let serve = |life: u64| {
        let server = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &test])
            .env(SERVE, format!("{port} {life}"))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let server = Camera(server);
        let until = Instant::now() + PATIENCE;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < until, "the RTSP server does not answer");
            std::thread::sleep(Duration::from_millis(5));
        }
        server
    };
    let parameters = format!("location = 'rtsp://127.0.0.1:{port}/cam'\nprotocols = '{protocol}'");
    dies_and_returns(extent(2, 20), camera("rtsp", &parameters, Some(1500)), TimeSource::Rtp, &serve, &shows_life);
}

#[test]
fn an_rtsp_server_over_tcp_may_die_and_return() {
    alone("an_rtsp_server_over_tcp_may_die_and_return", || rtsp_camera("tcp"));
}

#[test]
fn an_rtsp_server_over_udp_may_die_and_return() {
    alone("an_rtsp_server_over_udp_may_die_and_return", || rtsp_camera("udp"));
}

/// Fake cameras listen on one port.
static GIGE: Mutex<()> = Mutex::new(());

fn fake_gige_camera(serial: &str) -> Camera {
    let camera = Command::new("arv-fake-gv-camera-0.8")
        .args(["-i", "127.0.0.1", "-s", serial])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("arv-fake-gv-camera-0.8 is needed: apt-get install aravis-tools");
    Camera(camera)
}

#[test]
fn a_gige_camera_may_die_and_return() {
    let _one = GIGE.lock().unwrap_or_else(PoisonError::into_inner);
    alone("a_gige_camera_may_die_and_return", || {
        let serve = |_| fake_gige_camera("FAULTS");
        let parameters = "camera = 'Aravis-Fake-FAULTS'\nexposure_us = 5000\ngain_db = 3\nfeatures = 'TriggerMode=Off'\n\
             caps = 'video/x-raw,format=GRAY8,width=202,height=120,framerate=25/1'";
        let shows = |frame: &Frame, _| {
            let size = frame.picture.size();
            // Grey: the three channels are the same.
            (size.width, size.height) == (202, 120)
                && frame.picture.to_rgb().rgb().chunks(3).all(|p| p[0] == p[1] && p[1] == p[2])
        };
        // Aravis takes ten seconds to let go of a camera that is gone.
        dies_and_returns(extent(1, 20), camera("genicam", parameters, None), TimeSource::Camera, &serve, &shows);
    });
}

#[test]
fn a_gige_camera_that_exposes_on_command_takes_each_part_once() {
    let _one = GIGE.lock().unwrap_or_else(PoisonError::into_inner);
    alone("a_gige_camera_that_exposes_on_command_takes_each_part_once", || {
        let _server = fake_gige_camera("COMMAND");
        let parameters = "camera = 'Aravis-Fake-COMMAND'\nfeatures = 'TriggerMode=On TriggerSource=Software'\n\
             caps = 'video/x-raw,format=GRAY8,width=202,height=120'";
        let camera = CameraConfig {
            trigger: TriggerMode::Software,
            trigger_timeout_ms: 10_000,
            ..camera("genicam", parameters, None)
        };
        let name = camera.name.clone();
        let (sender, events) = sync_channel(256);
        let capture = Capture::start(&[camera], &sender).unwrap();
        let mut follower = Follower { events, numbers: Vec::new(), downs: 0, up: false };
        while !follower.up {
            follower.next();
        }
        let ask = |sequence: u64, frames: usize| {
            let at = Stamp { monotonic: Instant::now(), utc_us: 0, source: TimeSource::Trigger };
            let trigger = Trigger { part_id: format!("P-{sequence}").into(), sequence, at, frames };
            capture.shutter().trigger(&name, trigger);
        };
        let mut shown = |count: usize| -> Vec<String> {
            (0..count).map(|_| follower.frame()).map(|frame| frame.part_id.unwrap().to_string()).collect()
        };
        let parts = extent(10, 200);
        for part in 1..=parts {
            ask(part, 1);
            assert_eq!(shown(1), [format!("P-{part}")]);
        }
        // Three at once, the second of two frames: the camera exposes one after the other.
        ask(parts + 1, 1);
        ask(parts + 2, 2);
        ask(parts + 3, 1);
        let [one, two, three] = [1, 2, 3].map(|more| format!("P-{}", parts + more));
        assert_eq!(shown(4), [one, two.clone(), two, three]);
        // Nobody asks: nothing comes, and the camera is not taken for lost.
        std::thread::sleep(Duration::from_secs(4));
        assert!(follower.events.try_recv().is_err());
        assert_eq!((follower.downs, follower.numbers.len() as u64), (0, parts + 4));
        capture.stop();
    });
}

#[test]
fn a_triggered_gige_camera_may_be_silent_for_long_and_not_die() {
    let _one = GIGE.lock().unwrap_or_else(PoisonError::into_inner);
    alone("a_triggered_gige_camera_may_be_silent_for_long_and_not_die", || {
        let server = fake_gige_camera("SILENT");
        // A frame every four seconds, as a slow trigger gives them; Aravis's source waits two, since it
        // was asked for 25 a second.
        let parameters = "camera = 'Aravis-Fake-SILENT'\nfeatures = 'TriggerMode=Off AcquisitionFramePeriod=4000000'\n\
             caps = 'video/x-raw,format=GRAY8,width=202,height=120,framerate=25/1'";
        let camera = CameraConfig { trigger: TriggerMode::Hardware, ..camera("genicam", parameters, None) };
        let (sender, events) = sync_channel(256);
        let capture = Capture::start(&[camera], &sender).unwrap();
        let mut follower = Follower::new(events);
        // Its own timer runs when it is told to be slow.
        follower.frame();
        follower.frame();
        let mut before: Option<Instant> = None;
        for _ in 0..extent(3, 40) {
            let captured = follower.frame().captured.monotonic;
            let silence = before.map(|before| captured.saturating_duration_since(before).as_secs_f64());
            assert!(silence.is_none_or(|silence| (3.0..5.5).contains(&silence)), "frames {silence:?} s apart");
            before = Some(captured);
        }
        assert_eq!(follower.downs, 0, "a silent camera was taken for a lost one");
        drop(server);
        while follower.up {
            follower.next();
        }
        assert_eq!(follower.downs, 1);
        let _server = fake_gige_camera("SILENT");
        follower.frame();
        capture.stop();
    });
}
