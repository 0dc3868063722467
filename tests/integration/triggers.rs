//! Parts from the trigger to the answer, and the verdicts of several cameras about one part.

use std::sync::mpsc::sync_channel;

use linegate::inspection::{Decision, NotInspected, PartSource, TimeSource, Verdict};
use linegate::line::publishing::{CommandReply, Message, schema};
use linegate::line::topology::Line;

use crate::publishing::brokers::{Listener, Mosquitto, PATIENCE, eventually, publish, request};
use crate::run::{Site, cause, wait_until};

const TRIGGER: &str = "linegate/v1/s/l/t/cmd/trigger";

/// A line at a broker of its own.
fn site(broker: &Mosquitto) -> Site {
    let mut site = Site::new("[model]\nbundle = \"bundle\"\nthreads = 1\n");
    site.add(&format!("[mqtt]\nbroker = {{ kind = \"external\", host = \"127.0.0.1\", port = {} }}", broker.port));
    site
}

/// A camera that shows a grey of 128 or a white picture without end, and takes parts on command.
fn camera(site: &mut Site, name: &str, pattern: &str, more: &str) {
    site.add(&format!(
        "[[camera]]\nname = \"{name}\"\npipeline = \"test\"\ntrigger = \"software\"\n{more}\n\
         parameters = {{ pattern = \"{pattern}\", width = 96, height = 64, rate = 30 }}"
    ));
}

fn ask(broker: &Mosquitto, payload: &str) -> CommandReply {
    let answer = request(broker.port, TRIGGER, payload.as_bytes());
    let reply = answer.strip_prefix("mark-42 ").unwrap_or_else(|| panic!("no correlation data in {answer:?}"));
    serde_json::from_str(reply).unwrap()
}

fn is_up(line: &Line, listener: &Listener) {
    wait_until(|| listener.on("/t/state").last().is_some_and(|state| state.json()["state"] == "ready"));
    assert_eq!(line.stats().frames, 0, "frames that nobody asked for are no parts");
}

#[test]
fn a_trigger_is_answered_with_the_decision_about_its_part_and_nothing_else_is_inspected() {
    let broker = Mosquitto::start();
    let listener = Listener::start(broker.port, "linegate/v1/#", &[]);
    let mut site = site(&broker);
    camera(&mut site, "top", "white", "");
    let line = Line::start(&site.config(), None).unwrap();
    is_up(&line, &listener);
    let mut answered = Vec::new();
    for part in ["P-1", "P-2", "P-3"] {
        let reply = ask(&broker, &format!(r#"{{"part_id": "{part}"}}"#));
        let result = reply.result.unwrap_or_else(|| panic!("{:?}", reply.error));
        assert_eq!(result["part_id"], part);
        assert_eq!(result["decisions"][0]["camera"], "top");
        answered.push(result["decisions"][0]["result_id"].as_str().unwrap().to_owned());
    }
    for wrong in [r#"{"part_id": ""}"#, "{}", r#"{"part_id": "P", "camera": "side"}"#, "P-9"] {
        let reply = ask(&broker, wrong);
        assert!(!reply.ok && reply.error.is_some(), "{wrong}: {reply:?}");
    }
    let decisions = listener.wait_on("/top/decision", 3);
    let summary = line.stop();
    assert!(summary.is_whole(), "{summary:?}");
    assert_eq!(summary.stats.frames, 3);
    for (number, message) in decisions.iter().enumerate() {
        let decision: Decision = serde_json::from_str(&message.payload).unwrap();
        assert_eq!(decision.part_id, Some(format!("P-{}", number + 1)));
        assert_eq!((decision.part_source, decision.trigger), (PartSource::Trigger, Some(number as u64 + 1)));
        assert_eq!(decision.result_id, answered[number]);
        assert_ne!(decision.verdict, Verdict::NotInspected);
    }
}

#[test]
fn a_trigger_without_a_frame_becomes_a_decision_within_its_time() {
    let broker = Mosquitto::start();
    let listener = Listener::start(broker.port, "linegate/v1/#", &[]);
    let mut site = site(&broker);
    // A frame in ten seconds: the trigger does not wait so long.
    camera(&mut site, "top", "white", "trigger_timeout_ms = 200");
    let config = site.config();
    let mut slow = config.clone();
    slow.camera[0].pipeline = site.folder.path().join("slow.launch").to_string_lossy().into_owned();
    slow.camera[0].parameters.clear();
    std::fs::write(
        site.folder.path().join("slow.launch"),
        "videotestsrc is-live=true ! video/x-raw,width=96,height=64,framerate=1/10",
    )
    .unwrap();
    let (sender, decisions) = sync_channel(16);
    let line = Line::start(&slow, Some(sender)).unwrap();
    wait_until(|| listener.on("/t/state").last().is_some_and(|state| state.json()["state"] == "ready"));
    let reply = ask(&broker, r#"{"part_id": "P-1", "camera": "top"}"#);
    let decision = decisions.recv_timeout(PATIENCE).unwrap();
    assert_eq!(reply.result.unwrap()["decisions"][0]["result_id"], decision.result_id.as_str());
    assert_eq!((cause(&decision), decision.eject), (Some(NotInspected::NoFrame), true));
    assert_eq!((decision.part_id.as_deref(), decision.trigger), (Some("P-1"), Some(1)));
    assert_eq!(decision.captured_source, TimeSource::Trigger);
    let waited = decision.decided_us - decision.captured_us;
    assert!((200_000..10_000_000).contains(&waited), "{waited} us");
    let summary = line.stop();
    assert!(summary.is_whole(), "{summary:?}");
}

#[test]
fn a_trigger_for_a_camera_that_is_gone_is_told_at_once() {
    let broker = Mosquitto::start();
    let listener = Listener::start(broker.port, "linegate/v1/#", &[]);
    let mut site = site(&broker);
    site.add(
        "[[camera]]\nname = \"top\"\npipeline = \"folder\"\ntrigger = \"software\"\ntrigger_timeout_ms = 3600000\n\
         parameters = { location = \"nowhere\" }",
    );
    let line = Line::start(&site.config(), None).unwrap();
    listener.wait_on("/t/state", 1);
    wait_until(|| listener.on("/t/state").last().is_some_and(|state| state.json()["state"] == "error"));
    let reply = ask(&broker, r#"{"part_id": "P-1"}"#);
    assert_eq!(reply.result.unwrap()["decisions"][0]["verdict"], "not_inspected");
    let decision: Decision = serde_json::from_str(&listener.wait_on("/top/decision", 1)[0].payload).unwrap();
    assert_eq!(cause(&decision), Some(NotInspected::Lost));
    assert!(line.stop().is_whole());
}

#[test]
fn several_cameras_give_one_combined_verdict_beside_their_own() {
    let broker = Mosquitto::start();
    let listener = Listener::start(broker.port, "linegate/v1/#", &[]);
    let mut site = site(&broker);
    // Far brighter than the bundle's mean is far inside the normal boundary; black is beyond it.
    camera(&mut site, "top", "white", "");
    camera(&mut site, "side", "black", "");
    site.add(
        "[[part]]\nname = \"housing\"\ncameras = [\"top\", \"side\"]\nrule = \"all\"\nwindow_ms = 30000\nframes = 2",
    );
    let line = Line::start(&site.config(), None).unwrap();
    is_up(&line, &listener);
    let reply = ask(&broker, r#"{"part_id": "P-1"}"#);
    assert_eq!(reply.result.unwrap()["decisions"].as_array().unwrap().len(), 4);
    // One camera only: the other is missing.
    publish(broker.port, &["-t", TRIGGER, "-m", r#"{"part_id": "P-2", "camera": "top"}"#]);
    eventually("the second part is decided about", PATIENCE, || listener.on("/top/decision").len() == 4);
    let summary = line.stop();
    assert!(summary.is_whole(), "{summary:?}");
    assert_eq!((summary.stats.parts, summary.stats.decisions, summary.outbox), (2, 6, 0));
    let parts = listener.wait_on("/housing/part", 2);
    let validator = jsonschema::validator_for(&schema(Message::Part)).unwrap();
    let verdicts: Vec<Decision> = parts
        .iter()
        .map(|message| {
            assert!(validator.is_valid(&message.json()), "{}", message.payload);
            assert_eq!((message.qos, message.retained, message.expiry_s), (1, false, Some(30)));
            serde_json::from_str(&message.payload).unwrap()
        })
        .collect();
    let votes = |part: &Decision| -> Vec<(String, Verdict, usize)> {
        let cameras = &part.combined.as_ref().unwrap().cameras;
        cameras.iter().map(|vote| (vote.camera.clone(), vote.verdict, vote.decisions.len())).collect()
    };
    assert_eq!((verdicts[0].part_id.as_deref(), verdicts[0].verdict), (Some("P-1"), Verdict::Reject));
    assert_eq!(votes(&verdicts[0]), [("top".to_owned(), Verdict::Accept, 2), ("side".to_owned(), Verdict::Reject, 2)]);
    assert_eq!((verdicts[1].part_id.as_deref(), verdicts[1].verdict), (Some("P-2"), Verdict::NotInspected));
    assert_eq!(cause(&verdicts[1]), Some(NotInspected::NoFrame));
    assert!(verdicts[1].eject);
    let plain =
        serde_json::to_value(serde_json::from_str::<Decision>(&listener.on("/top/decision")[0].payload).unwrap());
    assert!(!validator.is_valid(&plain.unwrap()), "a single decision is no part's");
}

#[test]
fn a_hardware_triggered_camera_numbers_its_parts() {
    let mut site = Site::with_bundle();
    site.folder_camera("cam", 50, &[128; 3], "trigger = \"hardware\"");
    let (decisions, summary) = site.run();
    assert!(summary.is_whole());
    assert_eq!(decisions.iter().map(|d| d.trigger).collect::<Vec<_>>(), [Some(1), Some(2), Some(3)]);
}

#[test]
fn an_empty_belt_is_no_part_and_what_passes_between_two_empty_frames_is_one() {
    let mut site = Site::with_bundle();
    let part = "presence = { empty = \"empty.png\", difference = 20, share = 0.1 }";
    // Two parts of three and two frames.
    let greys = [60, 128, 128, 90, 60, 61, 128, 128, 60];
    // No names here: the gate counts the parts.
    std::fs::write(
        site.folder.path().join("belt.launch"),
        "# parameter location  files\nmultifilesrc location={location} caps=image/png,framerate=50/1 ! pngdec ! identity name=stamp",
    )
    .unwrap();
    site.add(&format!(
        "[[camera]]\nname = \"cam\"\npipeline = \"belt.launch\"\nends = true\n{part}\n\
         parameters = {{ location = \"%04d.png\" }}"
    ));
    site.add("[[part]]\nname = \"bolt\"\ncameras = [\"cam\"]\nrule = \"all\"\nwindow_ms = 60000\nframes = 2");
    let save = |grey: u8, name: String| {
        image::RgbImage::from_pixel(96, 64, image::Rgb([grey; 3])).save(site.folder.path().join(name)).unwrap();
    };
    greys.into_iter().enumerate().for_each(|(index, grey)| save(grey, format!("{index:04}.png")));
    save(60, "empty.png".into());
    let (decisions, summary) = site.run();
    assert!(summary.is_whole(), "{summary:?}");
    assert_eq!((summary.stats.frames, summary.stats.empty, summary.stats.parts), (5, 4, 2));
    let single = decisions.iter().filter(|d| d.combined.is_none());
    let seen: Vec<_> = single.map(|d| (d.frame, d.part_id.as_deref().unwrap())).collect();
    assert_eq!(seen, [(2, "1"), (3, "1"), (4, "1"), (7, "2"), (8, "2")]);
    let parts: Vec<_> = decisions.iter().filter(|d| d.combined.is_some()).collect();
    assert!(parts.iter().all(|part| part.verdict == Verdict::Accept && part.part_source == PartSource::Counter));
    assert_eq!(parts.iter().map(|part| part.part_id.as_deref().unwrap()).collect::<Vec<_>>(), ["1", "2"]);
}
