//! MQTT 5. The only room with the client and the embedded broker.
//!
//! One thread owns the client. A decision is appended to the outbox, published from there in order
//! at QoS 1, and removed when its PUBACK came. The client library does not say which publish was
//! acknowledged and forgets what was in flight when a connection breaks, so:
//!
//! - every connection has a client of its own, with nothing left over from the one before;
//! - what is handed to the client at QoS 1 stands in one list; the packet numbers that the client
//!   reports as it sends are dealt out to that list in order, and an acknowledged number leads
//!   back to its row;
//! - an acknowledged row stays two seconds longer and goes out again where the connection breaks in
//!   that time: a broker acknowledges before it has saved a message or passed it on;
//! - at every connection, whether the broker kept a session or not, publishing begins again at the
//!   oldest row of the outbox;
//! - after a connection was lost, a decision that the broker acknowledges without a subscriber is
//!   not delivered yet where there was one before: see [session`]'s `listeners`.
//!
//! So a decision arrives at least once; a duplicate has the same `result_id` and says `replayed`.
//! While the broker is away only the outbox grows.

mod broker;
mod commands;
mod credentials;
mod driver;
mod error;
mod message;
mod session;
mod shared;
mod subscriber;
mod topics;
mod trigger;

use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rumqttc::v5::MqttOptions;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::LastWill;

use super::outbox::{Appending, Outbox, OutboxError};
use crate::config::{Broker, Config, Mqtt};
use crate::inspection::{Decision, ModelIdentity};
use broker::EmbeddedBroker;
use shared::{Order, Shared};

pub use error::PublishingError;
pub use message::{CommandReply, Gaps, Message, ModelMessage, StateMessage, StationState, Stats, schema};
pub use subscriber::{Observation, Subscriber, SubscriberOptions};
pub use topics::Topics;
pub use trigger::{ReplyTo, TriggerCommand, TriggerRequest};

/// Payload of `availability` while the line runs.
pub const ONLINE: &str = "online";
/// Payload of `availability` after an orderly stop.
pub const STOPPED: &str = "stopped";
/// Payload of `availability` that the broker publishes when the line is gone without a word.
pub const OFFLINE: &str = "offline";

/// What delivery has done so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DeliveryCounters {
    /// Decisions taken over.
    pub submitted: u64,
    /// Decisions that the broker acknowledged, of this run or an earlier one.
    pub acknowledged: u64,
    /// Publishes that were replays.
    pub replayed: u64,
    /// Decisions in the outbox now.
    pub waiting: u64,
    /// Whether the broker is connected now.
    pub connected: bool,
    /// Decisions that expired unacknowledged because the outbox was full or they were too old.
    pub expired: u64,
    /// How many of these were rejects.
    pub expired_rejects: u64,
    /// Age of the oldest decision in the outbox.
    pub oldest_age: Option<Duration>,
    /// Decisions that neither the outbox nor the broker took.
    pub lost: u64,
}

/// The connection to the broker, with its own thread; the embedded broker too where configured.
/// Dropped without [`Delivery::stop`], it breaks the connection like a dying process does, and the
/// broker says `offline`.
#[derive(Debug)]
pub struct Delivery {
    // The thread is joined by `end`, before the broker that it talks to goes.
    thread: Mutex<Option<JoinHandle<()>>>,
    broker: Mutex<Option<EmbeddedBroker>>,
    shared: Arc<Shared>,
    outbox: Outbox,
    address: (String, u16),
}

impl Delivery {
    /// Starts the embedded broker where configured and the client, and begins with what the
    /// outbox holds. Does not wait for the connection.
    ///
    /// # Errors
    /// The embedded broker cannot listen, or credentials or certificates cannot be read.
    pub fn start(config: &Config, outbox: Outbox, boot_id: &str) -> Result<Self, PublishingError> {
        let mqtt = &config.mqtt;
        let credentials = credentials::read(mqtt)?;
        if mqtt.tls.is_some() && matches!(mqtt.broker, Broker::Embedded { .. }) {
            return Err(PublishingError::EmbeddedTls);
        }
        let transport = credentials::transport(mqtt.tls.as_ref())?;
        let (broker, address) = match &mqtt.broker {
            Broker::External { host, port } => (None, (host.clone(), *port)),
            Broker::Embedded { listen } => {
                let broker = EmbeddedBroker::start(listen, credentials.as_ref())?;
                let address = broker.address();
                (Some(broker), (reachable(address.ip()).to_string(), address.port()))
            }
        };
        let topics = Topics::new(&config.station);
        let station = &config.station;
        let client_id = mqtt
            .client_id
            .clone()
            .unwrap_or_else(|| format!("linegate-{}-{}-{}", station.site, station.line, station.station));
        let mut options = session::options(client_id, &address.0, address.1, mqtt.keep_alive_s);
        options.set_transport(transport);
        if let Some(credentials) = credentials {
            options.set_credentials(credentials.username, credentials.password);
        }
        options.set_last_will(LastWill::new(topics.availability(), OFFLINE, QoS::AtLeastOnce, true, None));
        Self::launch(options, topics, mqtt, outbox, boot_id, broker, address)
    }

    fn launch(
        options: MqttOptions,
        topics: Topics,
        mqtt: &Mqtt,
        outbox: Outbox,
        boot_id: &str,
        broker: Option<EmbeddedBroker>,
        address: (String, u16),
    ) -> Result<Self, PublishingError> {
        let shared = Arc::new(Shared::default());
        let speaker = session::Speaker::new(
            Arc::clone(&shared),
            outbox.clone(),
            topics,
            boot_id.to_owned(),
            mqtt.expiry_s,
            Duration::from_secs(mqtt.subscriber_wait_s),
            credentials::CommandSecret::read(mqtt)?,
        );
        let thread = driver::start(options, speaker).map_err(|source| PublishingError::Thread { source })?;
        Ok(Self { thread: Mutex::new(Some(thread)), broker: Mutex::new(broker), shared, outbox, address })
    }

    /// Host and port of the broker; for an embedded one told to take any port, the one it took.
    pub fn broker(&self) -> (&str, u16) {
        (&self.address.0, self.address.1)
    }

    /// Takes a decision over: when this returns, it stands in the outbox. Never waits for the
    /// broker.
    ///
    /// # Errors
    /// The outbox could not take it; it is published all the same.
    pub fn submit(&self, decision: Decision) -> Result<(), PublishingError> {
        self.begin(decision).finish()
    }

    /// Gives a decision its place behind those before it, without waiting for the disk.
    pub fn begin(&self, decision: Decision) -> Handing<'_> {
        self.shared.count_submitted();
        let appending = self.outbox.begin_append(&decision);
        Handing { delivery: self, decision, appending }
    }

    /// Publishes the state (retained).
    pub fn set_state(&self, state: StationState, detail: Option<String>) {
        self.shared.set_state(StateMessage { state, detail, since_us: now_us() });
    }

    /// Publishes which model decides (retained).
    pub fn set_model(&self, model: &ModelIdentity, provider: &str) {
        let message = ModelMessage { model: model.clone(), provider: provider.to_owned(), since_us: now_us() };
        self.shared.set_model(message);
    }

    /// Publishes counters.
    pub fn set_stats(&self, stats: &Stats) {
        self.shared.set_stats(stats.clone());
    }

    /// Has triggers handed to the line from now on; a full channel refuses them, which the
    /// requester is told.
    pub fn hand_triggers_to(&self, line: SyncSender<TriggerRequest>) {
        self.shared.set_trigger_line(line);
    }

    /// Answers a command. Not kept while the broker is away: what matters is the decision, which is.
    pub fn reply(&self, to: ReplyTo, reply: CommandReply) {
        self.shared.reply(to, reply);
    }

    /// What was done so far.
    pub fn counters(&self) -> DeliveryCounters {
        DeliveryCounters {
            waiting: self.outbox.len().saturating_sub(self.shared.held()),
            expired: self.outbox.expired(),
            expired_rejects: self.outbox.expired_rejects(),
            oldest_age: self.outbox.oldest_age(),
            ..self.shared.counters()
        }
    }

    /// How long ago the publishing thread last got on.
    pub fn since_turn(&self) -> Duration {
        self.shared.since_turn()
    }

    /// Where a damaged outbox was put since the start.
    pub fn outbox_set_aside(&self) -> Option<std::path::PathBuf> {
        self.outbox.set_aside()
    }

    /// Waits until the broker is connected; `false` when `patience` ended first.
    pub fn wait_connected(&self, patience: Duration) -> bool {
        self.shared.wait_connected(patience)
    }

    /// Waits for acknowledgements until `drain` has passed, says `stopped`, disconnects and stops
    /// the threads. What was not acknowledged stays in the outbox for the next start.
    pub fn stop(self, drain: Duration) -> DeliveryCounters {
        self.end_in_order(drain)
    }

    /// As [`Delivery::stop`], where somebody else may still hold it: a thread that hangs.
    pub fn end_in_order(&self, drain: Duration) -> DeliveryCounters {
        self.end(Order::Stop { until: Instant::now() + drain });
        // Removals still on their way to the disk count as done.
        if let Err(error) = self.outbox.settle() {
            tracing::error!(%error, "outbox could not settle at the stop");
        }
        let counters = self.counters();
        if counters.waiting > 0 {
            tracing::warn!(waiting = counters.waiting, "decisions stay in the outbox for the next start");
        }
        counters
    }

    fn end(&self, order: Order) {
        self.shared.order(order);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("publishing thread ended with a panic");
        }
        *self.broker.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// A decision that has its place and is on its way to the disk.
#[derive(Debug)]
#[must_use = "the decision is taken over when `finish` has returned"]
pub struct Handing<'delivery> {
    delivery: &'delivery Delivery,
    decision: Decision,
    appending: Result<Appending, OutboxError>,
}

impl Handing<'_> {
    /// Waits until it stands in the outbox.
    ///
    /// # Errors
    /// The outbox could not take it; it is published all the same.
    pub fn finish(self) -> Result<(), PublishingError> {
        match self.appending.and_then(Appending::wait) {
            Ok(_) => {
                self.delivery.shared.wake.notify_one();
                Ok(())
            }
            Err(source) => {
                let result_id = self.decision.result_id.clone();
                self.delivery.shared.submit_directly(self.decision);
                Err(PublishingError::NotStored { result_id, source })
            }
        }
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        let runs = self.thread.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        if runs {
            self.end(Order::Abort);
        }
    }
}

/// An address to connect to for one to listen on: any address becomes loopback.
fn reachable(listen: std::net::IpAddr) -> std::net::IpAddr {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
    match listen {
        IpAddr::V4(address) if address.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(address) if address.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        address => address,
    }
}

/// Microseconds since the Unix epoch, UTC.
fn now_us() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_micros() as i64)
}
