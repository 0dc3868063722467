//! Commands to the station and their replies.

use linegate::line::publishing::{CommandReply, StationState};

use super::brokers::{Listener, Mosquitto, PATIENCE, publish, request};
use super::{external, start};

fn ask(port: u16, command: &str, payload: &[u8]) -> CommandReply {
    let answer = request(port, &format!("linegate/v1/plant/line-1/cell/cmd/{command}"), payload);
    let reply = answer.strip_prefix("mark-42 ").unwrap_or_else(|| panic!("no correlation data in {answer:?}"));
    serde_json::from_str(reply).unwrap()
}

#[test]
fn commands_are_answered_to_the_requester_and_wrong_ones_get_an_error() {
    let broker = Mosquitto::start();
    let folder = tempfile::tempdir().unwrap();
    let delivery = start(&external(broker.port), folder.path());
    assert!(delivery.wait_connected(PATIENCE));
    delivery.set_state(StationState::Ready, None);
    let listener = Listener::start(broker.port, "linegate/v1/#", &[]);

    let ping = ask(broker.port, "ping", b"{}");
    assert!(ping.ok);
    assert_eq!(ping.result.unwrap()["boot_id"], "01JDTESTBOOT00000000000000");
    assert_eq!(ask(broker.port, "state", b"{}").result.unwrap()["state"], "ready");
    let unknown = ask(broker.port, "reboot", b"{}");
    assert!(!unknown.ok && unknown.error.unwrap().contains("unknown"));
    let large = ask(broker.port, "ping", &vec![b'x'; 70_000]);
    assert!(!large.ok && large.error.unwrap().contains("65536"));

    // A reply must not be mistaken for what the station itself says.
    let topic = "linegate/v1/plant/line-1/cell/cmd/ping";
    let forged = "linegate/v1/plant/line-1/cell/front/decision";
    publish(broker.port, &["-t", topic, "-m", "{}", "-D", "publish", "response-topic", forged]);
    assert!(ask(broker.port, "ping", b"{}").ok, "it still answers others");
    assert!(listener.on("/decision").is_empty());
    assert!(delivery.counters().connected);
    assert!(!listener.on("/availability").iter().any(|message| message.payload == "offline"));
}
