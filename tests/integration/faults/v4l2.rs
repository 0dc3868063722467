//! A real Video4Linux device, the kernel's virtual camera, in a guest: its formats and its clock, and
//! that it is unplugged, fails and comes back.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use linegate::inspection::{Decision, Frame, TimeSource, Verdict};
use linegate::line::publishing::{StateMessage, StationState, Stats};

use super::account::received;
use super::cameras::{PATIENCE, RECOVERY, camera, follow, held};
use super::extent;
use super::guest::in_guest;
use crate::publishing::brokers::{Listener, Mosquitto, eventually};
use crate::run::{Site, linegate};

const DEVICE: &str = "/dev/video0";
/// Where the kernel's driver lets go of its camera and takes it again.
const DRIVER: &str = "/sys/bus/platform/drivers/vivid";
const RATE: u32 = 10;

/// A camera's parameters. The device stamps a frame at its end unless told otherwise, which for this one
/// lies in the future, so that GStreamer does not believe it. White and without a caption, so that a frame
/// taken without the settings is seen by its colour bars.
fn parameters(device: &str, format: &str, width: u32, height: u32) -> String {
    format!(
        "device = '{device}'\ncontrols = 'c,timestamp_source=1,osd_text_mode=2,test_pattern=6'\n\
         caps = 'video/x-raw,format={format},width={width},height={height},framerate={RATE}/1'"
    )
}

fn control(name: &str, value: u32) {
    let set = format!("{name}={value}");
    let status = Command::new("v4l2-ctl").args(["-d", DEVICE, "-c", &set]).status();
    assert!(status.expect("v4l2-ctl is needed: run deploy/setup.sh --v4l2").success(), "{set}");
}

fn is_white(frame: &Frame) -> bool {
    frame.picture.to_rgb().rgb().iter().all(|&value| value >= 250)
}

#[test]
fn a_v4l2_camera_gives_each_of_its_formats_by_its_own_clock() {
    in_guest("a_v4l2_camera_gives_each_of_its_formats_by_its_own_clock", || {
        for (format, width, height) in [
            ("YUY2", 320, 180),
            ("NV12", 640, 360),
            ("GRAY8", 320, 180),
            ("RGB", 640, 360),
            ("BGRx", 320, 180),
            ("I420", 640, 360),
        ] {
            let (capture, mut follower) = follow(camera("v4l2", &parameters(DEVICE, format, width, height), None));
            let (mut before, mut ages) = (None, Vec::new());
            for _ in 0..10 {
                let frame = follower.frame();
                ages.push(frame.captured.monotonic.elapsed());
                let size = frame.picture.size();
                assert_eq!((size.width, size.height), (width as usize, height as usize), "{format}");
                assert!(is_white(&frame), "{format}: not the picture that was asked for");
                assert_eq!(frame.captured.source, TimeSource::Camera, "{format}");
                assert!(before < Some(frame.captured.monotonic), "{format}: frames out of order");
                before = Some(frame.captured.monotonic);
            }
            capture.stop();
            assert_eq!(follower.downs, 0, "{format}");
            // Also where GStreamer leaves the source's pad behind, as in this process, which is not prepared.
            assert!(follower.is_over(), "{format}: the events' channel stays open");
            ages.sort_unstable();
            println!("{format} {width}x{height}: handed over {:?} (median) after its stamp", ages[ages.len() / 2]);
            // Without a stamp of the driver that it believes, GStreamer takes one frame before the arrival.
            assert!(ages[0] < Duration::from_secs(1) / RATE, "{format}: the stamps are not the camera's: {ages:?}");
        }
    });
}

#[test]
fn a_v4l2_camera_whose_driver_fails_is_back_at_once_and_one_that_drops_frames_is_not_lost() {
    in_guest("a_v4l2_camera_whose_driver_fails_is_back_at_once_and_one_that_drops_frames_is_not_lost", || {
        let (capture, mut follower) = follow(camera("v4l2", &parameters(DEVICE, "YUY2", 320, 180), None));
        follower.frame();
        control("percentage_of_dropped_buffers", 50);
        let before = follower.numbers.len();
        for _ in 0..20 {
            assert!(is_white(&follower.frame()));
        }
        let told = follower.numbers.len() - before - 20;
        println!("{told} dropped frames beside 20 that came");
        assert!(told >= 5, "{told} frames told as lost where half of them were dropped");
        control("percentage_of_dropped_buffers", 0);
        control("inject_v4l2_buf_flag_error", 1);
        for _ in 0..10 {
            assert!(is_white(&follower.frame()));
        }
        assert_eq!(follower.downs, 0, "a frame that the driver dropped or spoilt is no lost camera");
        for round in 1..=extent(2, 20) {
            // What fails when the camera is opened again: nothing, or a step of it once.
            match round % 4 {
                2 => control("inject_vidioc_streamon_error", 1),
                3 => control("inject_vidioc_reqbufs_error", 1),
                0 => control("inject_vidioc_qbuf_error", 1),
                _ => {}
            }
            control("inject_fatal_streaming_error", 1);
            while follower.up {
                follower.next();
            }
            let failed = Instant::now();
            assert!(is_white(&follower.frame()));
            println!("round {round}: back {:?} after the driver failed", failed.elapsed());
            assert!(failed.elapsed() < RECOVERY, "round {round}: back {:?} after the driver failed", failed.elapsed());
            assert_eq!(follower.downs, round);
        }
        capture.stop();
        follower.numbers.sort_unstable();
        assert_eq!(follower.numbers, (1..=follower.numbers.len() as u64).collect::<Vec<_>>(), "every number once");
    });
}

/// A running line, and everything that it says.
struct Line {
    process: Child,
    listener: Listener,
    _broker: Mosquitto,
    _site: Site,
}

/// A line with v4l2 cameras of these names and parameters.
fn site(broker: u16, cameras: &[(&str, String)]) -> Site {
    let mut site = Site::new("[model]\nbundle = \"bundle\"\nthreads = 1\n");
    site.add(&format!(
        "[mqtt]\nstats_interval_s = 1\nbroker = {{ kind = \"external\", host = \"127.0.0.1\", port = {broker} }}"
    ));
    for (name, parameters) in cameras {
        site.add(&format!("[[camera]]\nname = \"{name}\"\npipeline = \"v4l2\"\n[camera.parameters]\n{parameters}"));
    }
    site
}

impl Line {
    fn start(cameras: &[(&str, String)]) -> Self {
        let broker = Mosquitto::start();
        let listener = Listener::start(broker.port, "linegate/v1/#", &[]);
        let site = site(broker.port, cameras);
        let process = linegate(&["run", "--config", site.path().to_str().unwrap()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { process, listener, _broker: broker, _site: site }
    }

    fn states(&self) -> Vec<StateMessage> {
        self.listener.on("/state").iter().map(|message| serde_json::from_str(&message.payload).unwrap()).collect()
    }

    fn wait_for(&self, state: StationState) {
        let is = |message: &StateMessage| message.state == state;
        eventually(&format!("the line is {state:?}"), PATIENCE, || self.states().last().is_some_and(is));
    }

    /// The decisions about frames behind the given one.
    fn behind(&self, frame: u64) -> Vec<Decision> {
        received(&self.listener).into_iter().filter(|decision| decision.frame > frame).collect()
    }

    fn last_frame(&self) -> u64 {
        received(&self.listener).iter().map(|decision| decision.frame).max().unwrap_or(0)
    }

    fn held(&self) -> (usize, u64) {
        held(&self.process.id().to_string())
    }

    /// Whether it has a file open or mapped, also one that is deleted.
    fn holds(&self, file: &str) -> bool {
        let process = format!("/proc/{}", self.process.id());
        let opened = std::fs::read_dir(format!("{process}/fd")).unwrap().flatten();
        let mut targets = opened.filter_map(|descriptor| std::fs::read_link(descriptor.path()).ok());
        targets.any(|target| target.to_string_lossy().starts_with(file))
            || std::fs::read_to_string(format!("{process}/maps")).unwrap().contains(file)
    }

    /// Stops it in order; how long that took.
    fn stop(&mut self) -> Duration {
        let begun = Instant::now();
        assert!(Command::new("kill").arg(self.process.id().to_string()).status().unwrap().success());
        eventually("the line ends", PATIENCE, || self.process.try_wait().unwrap().is_some());
        assert!(self.process.wait().unwrap().success());
        begun.elapsed()
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

fn now_us() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as i64
}

/// Takes the camera away as a pulled plug does. `softly`, its device file stays for now and says that the
/// device is gone, which some drivers do while a program has it open.
fn unplug(softly: bool) {
    if softly {
        control("disconnect", 1);
    } else {
        std::fs::write(format!("{DRIVER}/unbind"), "vivid.0").unwrap();
        eventually("the device file is gone", PATIENCE, || !Path::new(DEVICE).exists());
    }
}

/// Brings it again, once the line has let go of it: while a program has the one before open or mapped, the
/// kernel gives the next another name. Returns when it came.
fn plug(line: &Line) -> (Instant, i64) {
    if Path::new(DEVICE).exists() {
        unplug(false);
    }
    eventually("the line lets go of the camera that is gone", PATIENCE, || !line.holds(DEVICE));
    let returned = (Instant::now(), now_us());
    std::fs::write(format!("{DRIVER}/bind"), "vivid.0").unwrap();
    eventually("the device file is back under its name", PATIENCE, || Path::new(DEVICE).exists());
    returned
}

#[test]
fn a_v4l2_camera_may_be_unplugged_and_come_back() {
    in_guest("a_v4l2_camera_may_be_unplugged_and_come_back", || {
        let mut line = Line::start(&[("cam", parameters(DEVICE, "YUY2", 320, 180))]);
        line.wait_for(StationState::Executing);
        let (mut recoveries, mut before) = (Vec::new(), None);
        let times = extent(3, 30);
        for life in 1..=times {
            let frame = line.last_frame();
            eventually("decisions flow", PATIENCE, || line.behind(frame).len() >= 3);
            unplug(life % 2 == 0);
            line.wait_for(StationState::Error);
            let told = line.states().pop().and_then(|state| state.detail).unwrap();
            assert!(told.starts_with("camera cam is down"), "{told}");
            let last = line.last_frame();
            let (returned, returned_us) = plug(&line);
            let since = |decision: &Decision| decision.captured_us >= returned_us;
            eventually("the camera is back", PATIENCE, || line.behind(last).iter().any(since));
            recoveries.push(returned.elapsed());
            line.wait_for(StationState::Executing);
            for decision in line.behind(last) {
                // The loss is told at once, so that frames taken before it may still be scored then.
                let before = decision.decided_us < returned_us;
                assert!(since(&decision) || before, "life {life}: an old frame shown as new: {decision:?}");
            }
            if life == 2 {
                before = Some(line.held());
            }
        }
        let (after, (descriptors, kib)) = (line.held(), before.unwrap());
        eventually("the last gap is counted", PATIENCE, || {
            let stats = line.listener.on("/stats").pop().map(|message| message.payload).unwrap();
            serde_json::from_str::<Stats>(&stats).unwrap().gaps["cam"].losses == times
        });
        let stopped = line.stop();
        let decisions = received(&line.listener);
        recoveries.sort_unstable();
        let (median, slowest) = (recoveries[recoveries.len() / 2], recoveries[recoveries.len() - 1]);
        println!(
            "{times} times unplugged: {} decisions, back after {median:?} (median), {slowest:?} (slowest); \
             file descriptors {descriptors} -> {}, resident {kib} -> {} KiB; stopped in {stopped:?}",
            decisions.len(),
            after.0,
            after.1
        );
        let sequences: Vec<u64> = decisions.iter().map(|decision| decision.sequence).collect();
        assert_eq!(sequences, (1..=decisions.len() as u64).collect::<Vec<_>>(), "the sequence has no gap");
        for decision in decisions.iter().filter(|decision| decision.verdict != Verdict::NotInspected) {
            assert_eq!(decision.captured_source, TimeSource::Camera);
            assert_eq!(decision.verdict, Verdict::Accept, "taken without the camera's settings: {decision:?}");
        }
        let inspected = decisions.iter().filter(|decision| decision.verdict == Verdict::Accept).count();
        assert!(decisions.len() - inspected <= 2 * times as usize, "{inspected} of {} inspected", decisions.len());
        assert!(slowest < RECOVERY, "back after {slowest:?}");
        assert!(after.0 <= descriptors + 2, "file descriptors {descriptors} -> {}", after.0);
        assert!(after.1 <= kib + 16 * 1024, "resident {kib} -> {} KiB", after.1);
    });
}

fn check(site: &Site) -> (bool, String) {
    let Output { status, stdout, stderr } =
        linegate(&["check", "--config", site.path().to_str().unwrap()]).output().unwrap();
    (status.success(), String::from_utf8(stdout).unwrap() + &String::from_utf8(stderr).unwrap())
}

#[test]
fn a_v4l2_camera_that_is_not_there_or_not_able_is_told_and_the_line_does_not_execute() {
    in_guest("a_v4l2_camera_that_is_not_there_or_not_able_is_told_and_the_line_does_not_execute", || {
        let broker = Mosquitto::start();
        let (good, said) = check(&site(broker.port, &[("cam", parameters(DEVICE, "YUY2", 320, 180))]));
        assert!(good && said.contains("ok    camera cam: first frame after"), "{said}");
        let asked = |device, width| parameters(device, "YUY2", width, 180);
        let (cameras, reasons): (Vec<_>, Vec<_>) = [
            ("gone", asked("/dev/video9", 320), "'/dev/video9'. (system error: No such file or directory"),
            ("other", asked("/dev/null", 320), "'/dev/null': It isn't a v4l2 driver"),
            ("odd", asked(DEVICE, 321), "the camera does not offer video/x-raw, format=(string)YUY2, width=(int)321"),
            (
                "lacking",
                asked(DEVICE, 320).replace("pattern", "patern"),
                "the camera has no setting `test_patern` for `controls`; it has ",
            ),
            (
                "beyond",
                asked(DEVICE, 320).replace("mode=2", "mode=3"),
                "the camera's setting `osd_text_mode` takes 0 to 2; `controls` asks for 3",
            ),
        ]
        .map(|(name, parameters, why)| ((name, parameters), (name, why)))
        .into_iter()
        .unzip();
        let (good, said) = check(&site(broker.port, &cameras));
        assert!(!good, "{said}");
        for (name, why) in &reasons {
            let failed = format!("FAIL  camera {name}: ");
            assert!(said.lines().any(|line| line.starts_with(&failed) && line.contains(why)), "{name}: {said}");
        }
        let mut line = Line::start(&cameras);
        let told = |detail: &String| reasons.iter().all(|(_, why)| detail.contains(why));
        let is_told = || line.states().iter().any(|state| state.detail.as_ref().is_some_and(told));
        eventually("the line tells why", PATIENCE, is_told);
        // Several attempts later.
        std::thread::sleep(Duration::from_secs(3));
        let states: Vec<StationState> = line.states().iter().map(|state| state.state).collect();
        assert!(!states.contains(&StationState::Executing), "{states:?}");
        assert!(received(&line.listener).is_empty());
        line.stop();
    });
}
