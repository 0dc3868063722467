//! A bad network between line and broker. A proxy in the test makes it (no kernel module needed): what
//! a TCP connection shows of packet loss is a stall until the retransmission, so that is what a lost
//! chunk costs here.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rand::RngExt;

use super::account::{Producer, assert_all_arrived, received};
use super::extent;
use crate::publishing::brokers::{Listener, Mosquitto, PATIENCE};
use crate::publishing::{config, start};

/// Bytes of a packet.
const PACKET: usize = 1400;
/// Packets under way in one direction at most, about a default TCP window.
const UNDER_WAY: usize = 64;

#[derive(Debug, Clone, Copy, Default)]
struct Weather {
    delay: Duration,
    /// Share of packets lost.
    loss: f64,
    /// Nothing passes.
    parted: bool,
}

/// Forwards connections through the weather.
struct Proxy {
    port: u16,
    weather: Arc<Mutex<Weather>>,
    connections: Arc<AtomicUsize>,
    ending: Arc<AtomicBool>,
}

impl Proxy {
    fn start(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let weather = Arc::new(Mutex::new(Weather::default()));
        let (connections, ending) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (shared, counted, end) = (weather.clone(), connections.clone(), ending.clone());
        std::thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                if end.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(far) = TcpStream::connect(("127.0.0.1", target)) else { continue };
                counted.fetch_add(1, Ordering::SeqCst);
                for (from, to) in [(&near, &far), (&far, &near)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let (sender, receiver) = sync_channel(UNDER_WAY);
                    let (entering, leaving) = (shared.clone(), shared.clone());
                    std::thread::spawn(move || take_in(from, &entering, &sender));
                    std::thread::spawn(move || let_out(to, &leaving, &receiver));
                }
            }
        });
        Self { port, weather, connections, ending }
    }

    fn set(&self, weather: Weather) {
        *self.weather.lock().unwrap() = weather;
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::SeqCst);
        self.set(Weather::default());
        // Wakes the listening thread.
        drop(TcpStream::connect(("127.0.0.1", self.port)));
    }
}

fn take_in(mut from: TcpStream, weather: &Mutex<Weather>, out: &SyncSender<(Instant, Vec<u8>)>) {
    let mut packet = vec![0; PACKET];
    while let Ok(length @ 1..) = from.read(&mut packet) {
        let Weather { delay, loss, .. } = *weather.lock().unwrap();
        let mut arrival = Instant::now() + delay;
        let mut retransmission = 2 * delay + Duration::from_millis(200);
        while rand::rng().random_bool(loss) {
            arrival += retransmission;
            retransmission *= 2;
        }
        if out.send((arrival, packet[..length].to_vec())).is_err() {
            break;
        }
    }
    from.shutdown(Shutdown::Both).ok();
}

fn let_out(mut to: TcpStream, weather: &Mutex<Weather>, packets: &Receiver<(Instant, Vec<u8>)>) {
    for (arrival, packet) in packets {
        while Instant::now() < arrival || weather.lock().unwrap().parted {
            std::thread::sleep(Duration::from_millis(2));
        }
        if to.write_all(&packet).is_err() {
            break;
        }
    }
    to.shutdown(Shutdown::Both).ok();
}

#[test]
fn no_decision_is_lost_over_a_network_that_loses_delays_and_parts() {
    let broker = Mosquitto::start();
    let listener = Listener::start(broker.port, "linegate/v1/+/+/+/+/decision", &["-c", "-i", "keeper"]);
    let proxy = Proxy::start(broker.port);
    let folder = tempfile::tempdir().unwrap();
    let mqtt =
        format!("broker = {{ kind = \"external\", host = \"127.0.0.1\", port = {} }}\nkeep_alive_s = 5", proxy.port);
    let delivery = start(&config(&mqtt), folder.path());
    assert!(delivery.wait_connected(PATIENCE));
    let bad = Weather { delay: Duration::from_millis(extent(30, 300)), loss: 0.3, parted: false };
    let partition = Duration::from_millis(extent(700, 10_000));
    let producer = Producer::new(&delivery, 200);
    let partitions = extent(2, 4);
    std::thread::scope(|scope| {
        scope.spawn(|| producer.run());
        for _ in 0..partitions {
            proxy.set(bad);
            std::thread::sleep(partition);
            proxy.set(Weather { parted: true, ..bad });
            std::thread::sleep(partition);
        }
        proxy.set(bad);
        std::thread::sleep(partition);
        producer.done.store(true, Ordering::SeqCst);
    });
    let submitted = producer.submitted();
    // Still in bad weather: what the subscriber has not got stands in the outbox.
    let waiting = delivery.counters().waiting;
    let arrived = received(&listener).len();
    assert!(arrived as u64 + waiting >= submitted.len() as u64, "{arrived} + {waiting} of {}", submitted.len());
    proxy.set(Weather::default());
    // Everything that was made in bad weather is still to come.
    let copies = assert_all_arrived(&listener, &submitted, 3 * PATIENCE);
    let counters = delivery.stop(PATIENCE);
    assert_eq!((counters.waiting, counters.lost, counters.expired), (0, 0, 0));
    println!(
        "{partitions} partitions of {partition:?}, 30 % loss, {:?} delay: {} decisions, {waiting} waiting at the end \
         of the weather, {} connections, 0 lost, {copies} copies",
        bad.delay,
        submitted.len(),
        proxy.connections.load(Ordering::SeqCst)
    );
}
