//! The broker dies again and again.

use std::sync::atomic::Ordering;
use std::time::Duration;

use rand::RngExt;

use super::account::{Producer, assert_all_arrived};
use super::extent;
use crate::publishing::brokers::{Listener, Mosquitto, PATIENCE, eventually};
use crate::publishing::{config, start, wait_acknowledged};

/// Decisions a second.
const RATE: u32 = 200;

/// Kills and restarts the broker while decisions come; everything must reach the subscriber.
fn broker_is_killed(mut broker: Mosquitto, persistent: bool) {
    let folder = tempfile::tempdir().unwrap();
    let listener = Listener::start(broker.port, "linegate/v1/+/+/+/+/decision", &["-c", "-i", "keeper"]);
    if persistent {
        broker.save();
    }
    let broker_table = format!("broker = {{ kind = \"external\", host = \"127.0.0.1\", port = {} }}", broker.port);
    let delivery = start(&config(&broker_table), folder.path());
    assert!(delivery.wait_connected(PATIENCE));
    let producer = Producer::new(&delivery, RATE);
    let kills = extent(3, 20);
    std::thread::scope(|scope| {
        scope.spawn(|| producer.run());
        for _ in 0..kills {
            // The subscriber is back, and decisions flow: a moment anywhere in that.
            let before = listener.received().len();
            eventually("decisions flow", PATIENCE, || listener.received().len() > before);
            std::thread::sleep(Duration::from_millis(rand::rng().random_range(0..1000)));
            broker.kill();
            std::thread::sleep(Duration::from_millis(rand::rng().random_range(0..600)));
            broker.restart();
        }
        producer.done.store(true, Ordering::SeqCst);
    });
    let submitted = producer.submitted();
    wait_acknowledged(&delivery);
    let copies = assert_all_arrived(&listener, &submitted, PATIENCE);
    let counters = delivery.stop(PATIENCE);
    assert_eq!((counters.waiting, counters.lost, counters.expired), (0, 0, 0));
    println!("{kills} broker kills: {} decisions, 0 lost, {copies} copies", submitted.len());
}

#[test]
fn a_broker_that_keeps_its_sessions_is_killed_and_no_decision_is_lost() {
    broker_is_killed(Mosquitto::start(), true);
}

#[test]
fn a_broker_that_forgets_its_sessions_is_killed_and_no_decision_is_lost() {
    broker_is_killed(Mosquitto::with(|_| "allow_anonymous true\npersistence false".into()), false);
}
