//! Cameras that die and come back: the account of their frames, and an RTSP server as a process that is
//! killed.

use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use gstreamer_rtsp_server as rtsp;
use gstreamer_rtsp_server::prelude::*;
use linegate::config::CameraConfig;
use linegate::inspection::{Frame, TimeSource};
use linegate::line::capture::{Capture, CaptureEvent};

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
pub(super) fn alone(group: &str, test: &str, body: impl FnOnce()) {
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
    let name = format!("faults::{group}::{test}");
    command.args(["--exact", &name, "--nocapture"]).env(ALONE, test);
    assert!(command.status().unwrap().success(), "{name} failed in its own process; see above");
}

/// A process that is killed when it is dropped.
pub(super) struct Camera(pub(super) Child);

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
    pub(super) events: Receiver<CaptureEvent>,
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

/// Starts a camera and follows what it says.
pub(super) fn follow(camera: CameraConfig) -> (Capture, Follower) {
    let (sender, events) = sync_channel(256);
    (Capture::start(&[camera], &sender).unwrap(), Follower::new(events))
}

/// When a camera that died returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Returns {
    /// When its loss was told.
    Told,
    /// At once.
    AtOnce,
}

/// Kills a camera and starts it again and again. `serve` starts its life of the given number and
/// returns when it answers, `shows` tells whether a frame is of that life.
pub(super) fn dies_and_returns(
    kills: u64,
    returns: Returns,
    camera: CameraConfig,
    source: TimeSource,
    serve: &dyn Fn(u64) -> Camera,
    shows: &dyn Fn(&Frame, u64) -> bool,
) {
    let mut server = serve(0);
    let (capture, mut follower) = follow(camera);
    let mut recoveries = Vec::new();
    let mut before = None;
    for life in 0..=kills {
        if life > 0 {
            drop(server);
            let again = |()| (serve(life), Instant::now());
            let at_once = Some(()).filter(|()| returns == Returns::AtOnce).map(again);
            while follower.up {
                if let CaptureEvent::Frame(frame) = follower.next() {
                    assert!(shows(&frame, life - 1), "life {life}: a frame of no life before the gap");
                }
            }
            let returned;
            (server, returned) = at_once.unwrap_or_else(|| again(()));
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
    assert!(slowest < RECOVERY * extent(3, 1) as u32, "back after {slowest:?}");
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
    dies_and_returns(
        extent(2, 20),
        Returns::Told,
        camera("rtsp", &parameters, Some(1500)),
        TimeSource::Rtp,
        &serve,
        &shows_life,
    );
}

#[test]
fn an_rtsp_server_over_tcp_may_die_and_return() {
    alone("cameras", "an_rtsp_server_over_tcp_may_die_and_return", || rtsp_camera("tcp"));
}

#[test]
fn an_rtsp_server_over_udp_may_die_and_return() {
    alone("cameras", "an_rtsp_server_over_udp_may_die_and_return", || rtsp_camera("udp"));
}
