//! What is said, and how.

use linegate::inspection::{Decision, ModelIdentity, Region, Verdict};
use linegate::line::publishing::{Message, StationState, Stats, schema};

use super::brokers::{Listener, Mosquitto};
use super::{decision, external, start, wait_acknowledged};

fn assert_valid(message: Message, value: &serde_json::Value) {
    let validator = jsonschema::validator_for(&schema(message)).unwrap();
    let errors: Vec<String> = validator.iter_errors(value).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{errors:#?} in {value:#}");
}

#[test]
fn a_real_subscriber_gets_schema_valid_messages_with_the_promised_properties() {
    let broker = Mosquitto::start();
    let folder = tempfile::tempdir().unwrap();
    let listener = Listener::start(broker.port, "linegate/v1/#", &[]);
    let delivery = start(&external(broker.port), folder.path());
    delivery.set_state(StationState::Executing, Some("two cameras".into()));
    let model = ModelIdentity { name: "plate".into(), version: "3".into(), sha256: "cd".repeat(32) };
    delivery.set_model(&model, "cpu");
    assert!(delivery.wait_connected(super::PATIENCE));
    delivery.set_stats(&Stats { frames: 5, frames_per_second: 2.5, ..Stats::default() });
    let first = decision("front");
    let second = Decision {
        verdict: Verdict::NotInspected,
        reasons: vec![],
        image_score: None,
        threshold: None,
        boundary: None,
        model: None,
        part_id: None,
        deadline_ms: None,
        deadline_met: None,
        ..decision("back")
    };
    delivery.submit(first.clone()).unwrap();
    delivery.submit(second.clone()).unwrap();

    let decisions = listener.wait_on("/decision", 2);
    for (message, sent) in decisions.iter().zip([&first, &second]) {
        assert_valid(Message::Decision, &message.json());
        assert_eq!(message.topic, format!("linegate/v1/plant/line-1/cell/{}/decision", sent.camera));
        assert_eq!(message.qos, 1);
        assert!(!message.retained);
        let received: Decision = serde_json::from_str(&message.payload).unwrap();
        assert!(received.published_us > 0);
        assert_eq!(&Decision { published_us: 0, ..received }, sent, "live: neither replayed nor aged");
    }
    assert_eq!(decisions[0].expiry_s, Some(2), "the deadline of 1500 ms, rounded up");
    assert_eq!(decisions[1].expiry_s, Some(77), "mqtt.expiry_s without a deadline");
    let state = listener.wait_on("/cell/state", 1);
    assert_valid(Message::State, &state.last().unwrap().json());
    assert_eq!(state.last().unwrap().json()["state"], "executing");
    assert_valid(Message::Model, &listener.wait_on("/model", 1)[0].json());
    assert_valid(Message::Stats, &listener.wait_on("/stats", 1)[0].json());
    assert_eq!(listener.wait_on("/availability", 1)[0].payload, "online");

    let late = Listener::start(broker.port, "linegate/v1/#", &[]);
    for (ending, expected) in [
        ("/front/last", "reject"),
        ("/back/last", "not_inspected"),
        ("/state", "executing"),
        ("/model", "plate"),
        ("/availability", "online"),
    ] {
        let retained = late.wait_on(ending, 1);
        assert!(retained[0].retained && retained[0].payload.contains(expected), "{retained:?}");
    }
    assert!(late.on("/decision").is_empty(), "decisions are not retained");
    assert!(late.on("/stats").is_empty());
    wait_acknowledged(&delivery);
    let counters = delivery.stop(super::PATIENCE);
    assert_eq!((counters.submitted, counters.acknowledged, counters.replayed, counters.lost), (2, 2, 0, 0));
}

#[test]
fn an_orderly_stop_leaves_halted_and_stopped_behind_and_no_last_will() {
    let broker = Mosquitto::start();
    let folder = tempfile::tempdir().unwrap();
    let listener = Listener::start(broker.port, "linegate/v1/#", &[]);
    let delivery = start(&external(broker.port), folder.path());
    assert!(delivery.wait_connected(super::PATIENCE));
    for _ in 0..50 {
        delivery.submit(decision("front")).unwrap();
    }
    let counters = delivery.stop(super::PATIENCE);
    assert_eq!((counters.acknowledged, counters.waiting), (50, 0), "the stop waits for what was submitted");
    assert_eq!(listener.wait_on("/decision", 50).len(), 50);
    assert_eq!(listener.wait_on("/cell/state", 1)[0].json()["state"], "halted");
    listener.wait_on("/availability", 2);
    // A message sent now comes after any last will.
    super::brokers::publish(broker.port, &["-t", "linegate/v1/end", "-m", "end"]);
    listener.wait_on("/end", 1);
    let words: Vec<String> = listener.on("/availability").into_iter().map(|message| message.payload).collect();
    assert_eq!(words, ["online", "stopped"]);
}

#[test]
fn a_decision_too_large_for_the_broker_is_published_with_fewer_regions() {
    let broker = Mosquitto::with(|_| "allow_anonymous true\nmax_packet_size 8192".into());
    let folder = tempfile::tempdir().unwrap();
    let listener = Listener::start(broker.port, "linegate/v1/#", &[]);
    let delivery = start(&external(broker.port), folder.path());
    assert!(delivery.wait_connected(super::PATIENCE));
    let region = decision("front").regions[0];
    let regions = (0..500).map(|n| Region { peak_score: 500.0 - n as f32, ..region }).collect();
    delivery.submit(Decision { regions, ..decision("front") }).unwrap();
    delivery.submit(decision("front")).unwrap();
    let decisions = listener.wait_on("/decision", 2);
    let cut: Decision = serde_json::from_str(&decisions[0].payload).unwrap();
    assert!((1..500).contains(&cut.regions.len()), "{}", cut.regions.len());
    assert_eq!(cut.regions[0].peak_score, 500.0, "the highest peaks are kept");
    wait_acknowledged(&delivery);
}

#[test]
fn the_decision_payload_and_the_schemas_are_what_was_agreed() {
    let fixed = Decision { result_id: "01JDTESTRESULT000000000000".into(), ..decision("front") };
    insta::assert_json_snapshot!("decision", fixed);
    insta::assert_json_snapshot!("decision_schema", schema(Message::Decision));
    insta::assert_json_snapshot!("state_schema", schema(Message::State));
    insta::assert_json_snapshot!("stats_schema", schema(Message::Stats));
    insta::assert_json_snapshot!("model_schema", schema(Message::Model));
    insta::assert_json_snapshot!("reply_schema", schema(Message::Reply));
}

#[test]
fn the_schema_refuses_a_decision_without_its_verdict() {
    let validator = jsonschema::validator_for(&schema(Message::Decision)).unwrap();
    let mut value = serde_json::to_value(decision("front")).unwrap();
    assert!(validator.is_valid(&value));
    value["verdict"] = "fine".into();
    assert!(!validator.is_valid(&value));
    value.as_object_mut().unwrap().remove("verdict");
    assert!(!validator.is_valid(&value));
}
