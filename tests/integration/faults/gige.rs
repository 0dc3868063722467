//! Aravis's fake GigE Vision camera: that it dies and returns, waits for its next part, exposes on command,
//! tears its frames, and has the time of a PTP master.

use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use linegate::config::{CameraConfig, TriggerMode};
use linegate::inspection::{Frame, NotInspected, Stamp, TimeSource};
use linegate::line::capture::{Capture, CaptureEvent, Trigger};

use super::cameras::{Camera, Follower, Returns, alone, camera, dies_and_returns, follow};
use super::extent;

/// Fake cameras listen on one port.
static GIGE: Mutex<()> = Mutex::new(());

fn fake_gige_camera(serial: &str, more: &[&str]) -> Camera {
    let camera = Command::new("arv-fake-gv-camera-0.8")
        .args(["-i", "127.0.0.1", "-s", serial])
        .args(more)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("arv-fake-gv-camera-0.8 is needed: apt-get install aravis-tools");
    Camera(camera)
}

fn gige_dies(test: &str, returns: Returns) {
    let _one = GIGE.lock().unwrap_or_else(PoisonError::into_inner);
    alone("gige", test, || {
        let serve = |_| fake_gige_camera("FAULTS", &[]);
        let parameters = "camera = 'Aravis-Fake-FAULTS'\nexposure_us = 5000\ngain_db = 3\nfeatures = 'TriggerMode=Off'\n\
             caps = 'video/x-raw,format=GRAY8,width=202,height=120,framerate=25/1'";
        let shows = |frame: &Frame, _| {
            let size = frame.picture.size();
            // Grey: the three channels are the same.
            (size.width, size.height) == (202, 120)
                && frame.picture.to_rgb().rgb().chunks(3).all(|p| p[0] == p[1] && p[1] == p[2])
        };
        let camera = camera("genicam", parameters, None);
        dies_and_returns(extent(2, 20), returns, camera, TimeSource::Camera, &serve, &shows);
    });
}

#[test]
fn a_gige_camera_may_die_and_return() {
    gige_dies("a_gige_camera_may_die_and_return", Returns::Told);
}

#[test]
fn a_gige_camera_may_die_and_return_at_once() {
    gige_dies("a_gige_camera_may_die_and_return_at_once", Returns::AtOnce);
}

#[test]
fn every_frame_of_a_gige_camera_that_comes_torn_is_told() {
    let _one = GIGE.lock().unwrap_or_else(PoisonError::into_inner);
    alone("gige", "every_frame_of_a_gige_camera_that_comes_torn_is_told", || {
        // Of a thousand packets so many are lost; a frame has nineteen.
        let _server = fake_gige_camera("TORN", &["-r", "20"]);
        let parameters = "camera = 'Aravis-Fake-TORN'\npacket_resend = false\nfeatures = 'TriggerMode=Off'\n\
             caps = 'video/x-raw,format=GRAY8,width=202,height=120,framerate=25/1'";
        let camera = CameraConfig { trigger: TriggerMode::Hardware, ..camera("genicam", parameters, None) };
        let (capture, mut follower) = follow(camera);
        let (mut whole, mut torn) = (0, 0);
        // On a busy machine most are torn.
        while whole < extent(10, 1000) || torn < 5 {
            assert!(whole + torn < extent(2000, 20_000), "{whole} whole frames, {torn} torn");
            match follower.next() {
                CaptureEvent::Frame(frame) => {
                    whole += 1;
                    assert_eq!(frame.trigger, Some(frame.id.0));
                }
                CaptureEvent::Lost(lost) => {
                    torn += 1;
                    assert_eq!((lost.cause, lost.trigger), (NotInspected::Lost, Some(lost.id.0)));
                }
                _ => {}
            }
        }
        capture.stop();
        println!("{whole} whole frames, {torn} torn or missing");
        assert_eq!(follower.downs, 0, "a torn frame is no lost camera");
        // In their order, one after the other.
        assert_eq!(follower.numbers, (1..=whole + torn).collect::<Vec<_>>());
    });
}

/// The fake camera of that serial number, which exposes on command and sends no packet again; it is up.
fn on_command(serial: &str) -> (Capture, Follower) {
    let parameters = format!(
        "camera = 'Aravis-Fake-{serial}'\npacket_resend = false\nfeatures = 'TriggerMode=On TriggerSource=Software'\n\
         caps = 'video/x-raw,format=GRAY8,width=202,height=120'"
    );
    let camera = CameraConfig {
        trigger: TriggerMode::Software,
        // Only a frame of which nothing comes is waited for, as on a very busy machine.
        trigger_timeout_ms: 20_000,
        ..camera("genicam", &parameters, None)
    };
    let (capture, mut follower) = follow(camera);
    while !follower.up {
        follower.next();
    }
    (capture, follower)
}

/// Asks for a part's frames.
fn ask(capture: &Capture, sequence: u64, frames: usize) {
    let at = Stamp { monotonic: Instant::now(), utc_us: 0, source: TimeSource::Trigger };
    let trigger = Trigger { part_id: format!("P-{sequence}").into(), sequence, at, frames };
    capture.shutter().trigger("cam", trigger);
}

#[test]
fn a_part_whose_frame_comes_torn_from_a_gige_camera_is_told_at_once() {
    let _one = GIGE.lock().unwrap_or_else(PoisonError::into_inner);
    alone("gige", "a_part_whose_frame_comes_torn_from_a_gige_camera_is_told_at_once", || {
        let _server = fake_gige_camera("PARTS", &["-r", "20"]);
        let (capture, mut follower) = on_command("PARTS");
        let (mut whole, mut torn, mut missing) = (0, 0, 0);
        while whole < extent(10, 600) || torn < 5 {
            let sequence = whole + torn + missing + 1;
            assert!(missing < 5, "{missing} parts told by their time-out alone, {torn} torn");
            assert!(sequence < extent(1000, 10_000), "{whole} whole frames, {torn} torn");
            ask(&capture, sequence, 1);
            let (told, trigger) = match follower.next() {
                CaptureEvent::Frame(frame) => {
                    whole += 1;
                    (frame.part_id, frame.trigger)
                }
                CaptureEvent::Lost(lost) => {
                    match lost.cause {
                        NotInspected::Lost => torn += 1,
                        NotInspected::NoFrame => missing += 1,
                        other => panic!("{other:?}"),
                    }
                    (lost.part_id, lost.trigger)
                }
                other => panic!("{other:?}"),
            };
            assert_eq!((told.as_deref(), trigger), (Some(format!("P-{sequence}").as_str()), Some(sequence)));
        }
        capture.stop();
        println!("{whole} parts with a whole frame, {torn} with a torn one, {missing} with none");
    });
}

/// A description of the fake camera's registers, with one more: whether its clock follows a PTP master, which
/// it never really does. Its frames have the time of day.
fn description_with_ptp() -> String {
    let port = "<Length>4</Length><AccessMode>RW</AccessMode><pPort>Device</pPort><Sign>Unsigned</Sign>\
         <Endianess>BigEndian</Endianess>";
    let register =
        |name: &str, address: u32| format!("<IntReg Name=\"{name}\"><Address>{address}</Address>{port}</IntReg>");
    let choice = |name: &str, address: u32, entries: &[(&str, u32)]| {
        let entry =
            |(name, value): &(&str, u32)| format!("<EnumEntry Name=\"{name}\"><Value>{value}</Value></EnumEntry>");
        let entries: String = entries.iter().map(entry).collect();
        let at = format!("{name}Register");
        format!("<Enumeration Name=\"{name}\">{entries}<pValue>{at}</pValue></Enumeration>{}", register(&at, address))
    };
    let command = |name: &str, value: u32| {
        format!("<Command Name=\"{name}\"><pValue>Acquisition</pValue><CommandValue>{value}</CommandValue></Command>")
    };
    [
        "<RegisterDescription ModelName=\"Fake\" VendorName=\"Aravis\" StandardNameSpace=\"None\" \
         SchemaMajorVersion=\"1\" SchemaMinorVersion=\"0\" SchemaSubMinorVersion=\"1\" MajorVersion=\"1\" \
         MinorVersion=\"0\" SubMinorVersion=\"0\" ProductGuid=\"0\" VersionGuid=\"0\" \
         xmlns=\"http://www.genicam.org/GenApi/Version_1_0\">"
            .to_owned(),
        register("Width", 0x100),
        register("Height", 0x104),
        choice("PixelFormat", 0x128, &[("Mono8", 17_301_505)]),
        choice("AcquisitionMode", 0x12c, &[("Continuous", 1)]),
        register("Acquisition", 0x124),
        command("AcquisitionStart", 1),
        command("AcquisitionStop", 0),
        "<IntSwissKnife Name=\"PayloadSize\"><pVariable Name=\"W\">Width</pVariable>\
         <pVariable Name=\"H\">Height</pVariable><Formula>W*H</Formula></IntSwissKnife>"
            .to_owned(),
        choice("PtpStatus", 0x8000, &[("Listening", 0), ("Slave", 1)]),
        "<Port Name=\"Device\"></Port></RegisterDescription>".to_owned(),
    ]
    .concat()
}

#[test]
fn a_gige_camera_that_follows_a_ptp_master_tells_the_time_of_its_frames() {
    let _one = GIGE.lock().unwrap_or_else(PoisonError::into_inner);
    alone("gige", "a_gige_camera_that_follows_a_ptp_master_tells_the_time_of_its_frames", || {
        let folder = tempfile::tempdir().unwrap();
        let description = folder.path().join("camera.xml");
        std::fs::write(&description, description_with_ptp()).unwrap();
        let _server = fake_gige_camera("PTP", &["-g", description.to_str().unwrap()]);
        for (status, source) in [("Slave", TimeSource::Ptp), ("Listening", TimeSource::Camera)] {
            // Small ones: a burst of packets that the kernel's buffer does not hold comes torn.
            let parameters = format!(
                "camera = 'Aravis-Fake-PTP'\nfeatures = 'PtpStatus={status}'\n\
                 caps = 'video/x-raw,format=GRAY8,width=202,height=120'"
            );
            let (capture, mut follower) = follow(camera("genicam", &parameters, None));
            let mut before = 0;
            for _ in 0..5 {
                let captured = follower.frame().captured;
                assert_eq!(captured.source, source, "{status}");
                let age = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as i64 - captured.utc_us;
                assert!((0..2_000_000).contains(&age), "{status}: a frame {age} us old");
                assert!(captured.utc_us > before, "{status}");
                before = captured.utc_us;
            }
            capture.stop();
        }
    });
}

#[test]
fn a_gige_camera_that_exposes_on_command_takes_each_part_once() {
    let _one = GIGE.lock().unwrap_or_else(PoisonError::into_inner);
    alone("gige", "a_gige_camera_that_exposes_on_command_takes_each_part_once", || {
        let _server = fake_gige_camera("COMMAND", &[]);
        let (capture, mut follower) = on_command("COMMAND");
        let ask = |sequence, frames| ask(&capture, sequence, frames);
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
    alone("gige", "a_triggered_gige_camera_may_be_silent_for_long_and_not_die", || {
        let server = fake_gige_camera("SILENT", &[]);
        // A frame every four seconds, as a slow trigger gives them; Aravis's source waits two, since it
        // was asked for 25 a second.
        let parameters = "camera = 'Aravis-Fake-SILENT'\nfeatures = 'TriggerMode=Off AcquisitionFramePeriod=4000000'\n\
             caps = 'video/x-raw,format=GRAY8,width=202,height=120,framerate=25/1'";
        let camera = CameraConfig { trigger: TriggerMode::Hardware, ..camera("genicam", parameters, None) };
        let (capture, mut follower) = follow(camera);
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
        let _server = fake_gige_camera("SILENT", &[]);
        follower.frame();
        capture.stop();
    });
}
