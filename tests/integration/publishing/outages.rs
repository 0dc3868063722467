//! Brokers that die, refuse or are not there; lines that die.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use linegate::inspection::Decision;
use linegate::line::publishing::{Delivery, PublishingError};

use super::brokers::{Listener, Mosquitto, PATIENCE, eventually, free_port, password_file};
use super::{config, decision, embedded, external, outbox, start, wait_acknowledged};

#[test]
fn no_decision_is_lost_when_the_broker_is_killed_and_comes_back() {
    let mut broker = Mosquitto::start();
    let folder = tempfile::tempdir().unwrap();
    let session = ["-c", "-i", "keeper"];
    let listener = Listener::start(broker.port, "linegate/v1/+/+/+/+/decision", &session);
    broker.save();
    let delivery = start(&external(broker.port), folder.path());
    assert!(delivery.wait_connected(PATIENCE));

    let mut submitted = BTreeSet::new();
    for number in 1..=600u64 {
        let sent = Decision { sequence: number, ..decision("front") };
        submitted.insert(sent.result_id.clone());
        delivery.submit(sent).unwrap();
        match number {
            200 => {
                listener.wait_on("/decision", 1);
                broker.kill();
            }
            400 => broker.restart(),
            _ => std::thread::sleep(Duration::from_millis(1)),
        }
    }
    wait_acknowledged(&delivery);
    let received = || -> Vec<Decision> {
        listener.received().iter().map(|message| serde_json::from_str(&message.payload).unwrap()).collect()
    };
    eventually("every decision has arrived", PATIENCE, || {
        received().iter().map(|decision| decision.result_id.clone()).collect::<BTreeSet<_>>() == submitted
    });
    let mut seen: BTreeMap<String, Decision> = BTreeMap::new();
    let mut newest = 0;
    let mut replayed = 0;
    for arrived in received() {
        if let Some(before) = seen.get(&arrived.result_id) {
            // What was on its way when the broker was killed it may deliver twice, to the letter the
            // same; a publish of ours never is, for it has a time of its own.
            let of_the_broker = arrived == *before && before.sequence <= 200;
            assert!(arrived.replayed || of_the_broker, "a repetition of ours says so");
            assert_eq!(before.sequence, arrived.sequence);
        } else {
            assert!(arrived.sequence > newest, "first arrivals keep their order");
            newest = arrived.sequence;
        }
        assert_eq!(arrived.replayed, arrived.age_ms.is_some());
        replayed += u64::from(arrived.replayed);
        seen.insert(arrived.result_id.clone(), arrived);
    }
    assert!(replayed >= 200, "what was made during the outage is marked: {replayed}");
    let counters = delivery.stop(PATIENCE);
    assert_eq!((counters.waiting, counters.lost, counters.expired), (0, 0, 0));
    assert_eq!(counters.acknowledged, 600);
}

#[test]
fn a_line_that_dies_is_offline_and_its_decisions_come_replayed_from_the_next() {
    let broker = Mosquitto::start();
    let folder = tempfile::tempdir().unwrap();
    let listener = Listener::start(broker.port, "linegate/v1/#", &[]);
    {
        let delivery = start(&external(broker.port), folder.path());
        assert!(delivery.wait_connected(PATIENCE));
        listener.wait_on("/availability", 1);
        // Dropped without a stop: the connection breaks like that of a killed process.
    }
    assert_eq!(listener.wait_on("/availability", 2)[1].payload, "offline");

    let left: Vec<Decision> = (1..=250).map(|sequence| Decision { sequence, ..decision("front") }).collect();
    {
        let queue = outbox(folder.path());
        for decision in &left {
            queue.append(decision).unwrap();
        }
    }
    let delivery = start(&external(broker.port), folder.path());
    let arrived = listener.wait_on("/decision", 250);
    wait_acknowledged(&delivery);
    for (message, sent) in arrived.iter().zip(&left) {
        let decision: Decision = serde_json::from_str(&message.payload).unwrap();
        assert_eq!(decision.result_id, sent.result_id);
        assert!(decision.replayed && decision.age_ms.is_some());
        assert_eq!(message.expiry_s, Some(77), "for the record: not the deadline's expiry");
    }
    delivery.submit(Decision { sequence: 251, ..decision("front") }).unwrap();
    let live: Decision = serde_json::from_str(&listener.wait_on("/decision", 251)[250].payload).unwrap();
    assert!(!live.replayed && live.age_ms.is_none());
    let words: Vec<String> = listener.on("/availability").into_iter().map(|message| message.payload).collect();
    assert_eq!(words, ["online", "offline", "online"], "said again at every connection");
    assert_eq!(delivery.stop(PATIENCE).replayed, 250);
}

#[test]
fn a_line_starts_without_a_broker_and_keeps_what_it_decides() {
    let folder = tempfile::tempdir().unwrap();
    let delivery = start(&external(free_port()), folder.path());
    for _ in 0..20 {
        delivery.submit(decision("front")).unwrap();
    }
    assert!(!delivery.wait_connected(Duration::from_millis(300)));
    let counters = delivery.stop(Duration::from_millis(200));
    assert_eq!((counters.submitted, counters.acknowledged, counters.waiting), (20, 0, 20));
    assert_eq!(outbox(folder.path()).len(), 20);
}

#[test]
fn a_refused_connection_is_not_a_connection() {
    let broker = Mosquitto::with(|folder| {
        let passwords = folder.join("passwords");
        password_file(&passwords, "line", "secret");
        format!("allow_anonymous false\npassword_file {}", passwords.display())
    });
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("password");
    let mqtt = format!(
        "broker = {{ kind = \"external\", host = \"127.0.0.1\", port = {} }}\nusername = \"line\"\npassword_file = {:?}",
        broker.port,
        secret.display().to_string()
    );
    std::fs::write(&secret, "wrong\n").unwrap();
    let delivery = start(&config(&mqtt), folder.path());
    delivery.submit(decision("front")).unwrap();
    assert!(!delivery.wait_connected(Duration::from_millis(500)));
    assert_eq!(delivery.stop(Duration::ZERO).waiting, 1);

    std::fs::write(&secret, "secret\n").unwrap();
    let delivery = start(&config(&mqtt), folder.path());
    assert!(delivery.wait_connected(PATIENCE));
    assert_eq!(delivery.stop(PATIENCE).waiting, 0);

    std::fs::remove_file(&secret).unwrap();
    let missing = Delivery::start(&config(&mqtt), outbox(folder.path()), "boot");
    assert!(matches!(missing, Err(PublishingError::Secret { .. })));
}

#[test]
fn the_broker_is_reached_over_tls_and_only_with_the_right_authority() {
    let keys = tempfile::tempdir().unwrap();
    let file = |name: &str| keys.path().join(name).display().to_string();
    let make = |name: &str| {
        let status = std::process::Command::new("openssl")
            .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"])
            .args(["-addext", "subjectAltName=DNS:localhost"])
            .args(["-keyout", &file(&format!("{name}.key")), "-out", &file(&format!("{name}.pem"))])
            .stderr(std::process::Stdio::null())
            .status()
            .unwrap();
        assert!(status.success());
    };
    make("broker");
    make("other");
    let broker = Mosquitto::with(|_| {
        format!("allow_anonymous true\ncertfile {}\nkeyfile {}", file("broker.pem"), file("broker.key"))
    });
    let with_authority = |authority: &str| {
        config(&format!(
            "broker = {{ kind = \"external\", host = \"localhost\", port = {} }}\ntls = {{ ca_file = {:?} }}",
            broker.port,
            file(authority)
        ))
    };
    let folder = tempfile::tempdir().unwrap();
    let delivery = start(&with_authority("broker.pem"), folder.path());
    assert!(delivery.wait_connected(PATIENCE));
    delivery.submit(decision("front")).unwrap();
    wait_acknowledged(&delivery);
    delivery.stop(PATIENCE);
    let delivery = start(&with_authority("other.pem"), folder.path());
    assert!(!delivery.wait_connected(Duration::from_millis(700)));
    delivery.stop(Duration::ZERO);
    let wrong = Delivery::start(&with_authority("broker.key"), outbox(folder.path()), "boot");
    assert!(matches!(wrong, Err(PublishingError::Tls { .. })), "{wrong:?}");
}

#[test]
fn the_embedded_broker_serves_mqtt_5_clients_and_ends_with_the_line() {
    let folder = tempfile::tempdir().unwrap();
    let delivery = start(&embedded(), folder.path());
    let port = delivery.broker().1;
    assert!(delivery.wait_connected(PATIENCE));
    let listener = Listener::start(port, "linegate/v1/#", &[]);
    assert_eq!(listener.wait_on("/availability", 1)[0].payload, "online", "retained for later subscribers");
    for sequence in 1..=300 {
        delivery.submit(Decision { sequence, ..decision("front") }).unwrap();
    }
    let arrived = listener.wait_on("/decision", 300);
    let order: Vec<u64> = arrived.iter().map(|message| message.json()["sequence"].as_u64().unwrap()).collect();
    assert_eq!(order, (1..=300).collect::<Vec<_>>());

    let taken = config(&format!("broker = {{ kind = \"embedded\", listen = \"127.0.0.1:{port}\" }}"));
    let other = tempfile::tempdir().unwrap();
    let error = Delivery::start(&taken, outbox(other.path()), "boot").unwrap_err();
    assert!(matches!(&error, PublishingError::Listen { .. }), "{error}");
    assert!(error.to_string().contains(&port.to_string()));

    assert_eq!(delivery.stop(PATIENCE).waiting, 0);
    eventually("the subscriber hears the stop", PATIENCE, || {
        listener.on("/availability").last().is_some_and(|message| message.payload == "stopped")
    });
    let again = Delivery::start(&taken, outbox(other.path()), "boot").unwrap();
    assert!(again.wait_connected(PATIENCE), "the port is free again");
    again.stop(PATIENCE);
}
