//! The other end: follows what stations say.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Filter, Packet, Publish};
use rumqttc::v5::{AsyncClient, ConnectionError, Event, MqttOptions};

use super::driver::Backoff;
use super::message::{ModelMessage, StateMessage, Stats};
use super::topics::{self, Subject};
use super::{PublishingError, credentials, session};
use crate::inspection::Decision;
use crate::line::prompt::take_short_turns;

/// Observations waiting to be taken at most; beyond, the broker has to wait.
const QUEUE: usize = 4096;
/// A connection that held so long was a good one.
const GOOD_CONNECTION: Duration = Duration::from_secs(5);
/// How often the end is looked for when nothing comes.
const TICK: Duration = Duration::from_millis(50);

/// Whom to follow, and where.
#[derive(Debug, Clone)]
pub struct SubscriberOptions {
    /// Host name or address of the broker.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Only this site.
    pub site: Option<String>,
    /// Only this line.
    pub line: Option<String>,
    /// Only this station.
    pub station: Option<String>,
    /// User name at the broker.
    pub username: Option<String>,
    /// File that holds the password on its first line.
    pub password_file: Option<PathBuf>,
}

/// Something a station or the broker said. `station` is `site/line/station`.
#[derive(Debug, Clone, PartialEq)]
pub enum Observation {
    /// The broker accepted the connection and the subscriptions were sent.
    Connected,
    /// The connection broke or could not be made; it is tried again.
    Disconnected {
        /// Why.
        reason: String,
    },
    /// A decision.
    Decision(Box<Decision>),
    /// The combined verdict about a part.
    Part(Box<Decision>),
    /// A state.
    State {
        /// Who.
        station: String,
        /// What.
        message: StateMessage,
    },
    /// `online`, `stopped` or `offline`.
    Availability {
        /// Who.
        station: String,
        /// The word.
        word: String,
    },
    /// Which model decides.
    Model {
        /// Who.
        station: String,
        /// What.
        message: ModelMessage,
    },
    /// Counters.
    Stats {
        /// Who.
        station: String,
        /// What.
        message: Box<Stats>,
    },
    /// A payload that is not what its topic promises.
    Unreadable {
        /// The topic.
        topic: String,
        /// Why.
        error: String,
    },
}

/// A subscription with its own thread; ends when dropped.
#[derive(Debug)]
pub struct Subscriber {
    observations: Option<Receiver<Observation>>,
    ending: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Subscriber {
    /// Starts following. Does not wait for the connection.
    ///
    /// # Errors
    /// The password file cannot be read or the thread not be started.
    pub fn start(options: &SubscriberOptions) -> Result<Self, PublishingError> {
        let client_id = format!("linegate-watch-{}", ulid::Ulid::generate());
        let mut client = session::options(client_id, &options.host, options.port, 15);
        if let Some(username) = &options.username {
            let password = match &options.password_file {
                Some(file) => credentials::first_line("the password file", file)?,
                None => String::new(),
            };
            client.set_credentials(username, password);
        }
        let filters = topics::filters(options.site.as_deref(), options.line.as_deref(), options.station.as_deref());
        let thread_error = |source| PublishingError::Thread { source };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(thread_error)?;
        let (sender, observations) = sync_channel(QUEUE);
        let ending = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&ending);
        let thread = std::thread::Builder::new()
            .name("subscriber".into())
            .spawn(move || {
                take_short_turns();
                runtime.block_on(follow(&client, &filters, &sender, &told));
                runtime.shutdown_background();
            })
            .map_err(thread_error)?;
        Ok(Self { observations: Some(observations), ending, thread: Some(thread) })
    }

    /// The next observation; none when `patience` ended first.
    pub fn next(&self, patience: Duration) -> Option<Observation> {
        let observations = self.observations.as_ref()?;
        match observations.recv_timeout(patience) {
            Ok(observation) => Some(observation),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => {
                // The thread is gone, which it is not before the end: do not let a caller spin.
                std::thread::sleep(patience);
                None
            }
        }
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Release);
        // Unblocks a thread that waits for room.
        drop(self.observations.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("subscriber ended with a panic");
        }
    }
}

async fn follow(
    options: &MqttOptions,
    filters: &[String],
    observations: &SyncSender<Observation>,
    ending: &AtomicBool,
) {
    let mut backoff = Backoff::default();
    while !ending.load(Ordering::Acquire) {
        let since = Instant::now();
        let (client, mut eventloop) = AsyncClient::new(options.clone(), 16);
        let connection = async {
            loop {
                match eventloop.poll().await {
                    Ok(event) => {
                        if !take(&client, filters, event, observations) {
                            return None;
                        }
                    }
                    Err(error) => return Some(error),
                }
            }
        };
        let told = async {
            while !ending.load(Ordering::Acquire) {
                tokio::time::sleep(TICK).await;
            }
        };
        let error: Option<ConnectionError> = tokio::select! { error = connection => error, () = told => None };
        let Some(error) = error else { return };
        if since.elapsed() > GOOD_CONNECTION {
            backoff.reset();
        }
        if observations.send(Observation::Disconnected { reason: error.to_string() }).is_err() {
            return;
        }
        let until = Instant::now() + backoff.next(rand::random());
        while Instant::now() < until && !ending.load(Ordering::Acquire) {
            tokio::time::sleep(TICK.min(until.saturating_duration_since(Instant::now()))).await;
        }
    }
}

/// Passes an event on; `false` when nobody listens any more.
fn take(client: &AsyncClient, filters: &[String], event: Event, observations: &SyncSender<Observation>) -> bool {
    let observation = match event {
        Event::Incoming(Packet::ConnAck(_)) => {
            let filters = filters.iter().map(|filter| Filter::new(filter, QoS::AtLeastOnce));
            match client.try_subscribe_many(filters) {
                Ok(()) => Observation::Connected,
                Err(error) => Observation::Disconnected { reason: error.to_string() },
            }
        }
        Event::Incoming(Packet::Publish(publish)) => match read(&publish) {
            Some(observation) => observation,
            None => return true,
        },
        _ => return true,
    };
    observations.send(observation).is_ok()
}

fn read(publish: &Publish) -> Option<Observation> {
    let topic = String::from_utf8_lossy(&publish.topic).into_owned();
    // An empty payload is a retained message being cleared.
    if publish.payload.is_empty() {
        return None;
    }
    let (station, subject) = topics::parse(&topic)?;
    let payload = &publish.payload;
    let observation = match subject {
        Subject::Decision => serde_json::from_slice(payload).map(Observation::Decision),
        Subject::Part => serde_json::from_slice(payload).map(Observation::Part),
        Subject::State => serde_json::from_slice(payload).map(|message| Observation::State { station, message }),
        Subject::Model => serde_json::from_slice(payload).map(|message| Observation::Model { station, message }),
        Subject::Stats => serde_json::from_slice(payload).map(|message| Observation::Stats { station, message }),
        Subject::Availability => {
            let word = String::from_utf8_lossy(payload).into_owned();
            Ok(Observation::Availability { station, word })
        }
    };
    Some(observation.unwrap_or_else(|error| Observation::Unreadable { topic, error: error.to_string() }))
}
