//! One connection to the broker, from CONNECT to its end.

mod listeners;
mod outgoing;
mod speaker;
mod words;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rumqttc::Outgoing;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{ConnAck, Packet, PubAck, PubAckReason};
use rumqttc::v5::{AsyncClient, ConnectionError, Event, MqttOptions};
use tokio::sync::mpsc;

use listeners::{Answer, Listeners};
pub(super) use speaker::Speaker;

use super::shared::Order;
use super::{ONLINE, STOPPED, broker, now_us};
use crate::inspection::Decision;
use crate::line::outbox::Waiting;

/// Publishes in flight at most; fewer where the broker's receive maximum says so.
const WINDOW: usize = 100;
/// Places in flight kept free of decisions, for state and replies.
const RESERVE: usize = 8;
/// Requests between us and the client: every decision makes two, the rest is state and replies.
const REQUESTS: usize = 4 * WINDOW;
/// Decisions read from the outbox at once.
const PAGE: usize = 64;
/// How often deadlines are looked at when nothing happens.
const TICK: Duration = Duration::from_millis(50);
/// How long the last words may take to be acknowledged, and the disconnect to be sent.
const FAREWELL: Duration = Duration::from_secs(2);
/// A decision that the broker refused is offered again after so long.
const OFFER_AGAIN: Duration = Duration::from_secs(30);
/// After a failed read the outbox is left alone for so long.
const READ_AGAIN: Duration = Duration::from_secs(1);
/// Largest packet we accept, bytes: above the embedded broker's own limit, so that no client can
/// break our connection with a large command.
const MAX_INCOMING: u32 = 1024 * 1024;

/// Options every client of ours has.
pub(super) fn options(client_id: String, host: &str, port: u16, keep_alive_s: u16) -> MqttOptions {
    let mut options = MqttOptions::new(client_id, host, port);
    options
        .set_keep_alive(Duration::from_secs(keep_alive_s.max(5).into()))
        .set_clean_start(true)
        .set_max_packet_size(Some(MAX_INCOMING))
        .set_outgoing_inflight_upper_limit((WINDOW + RESERVE) as u16);
    let mut network = options.network_options();
    // A decision must not wait for the acknowledgement of the one before.
    network.set_tcp_nodelay(true);
    options.set_network_options(network);
    options
}

/// How a connection ended.
#[derive(Debug)]
pub(super) enum End {
    /// In order, as told.
    Stopped,
    /// Without a word, as told.
    Aborted,
    /// Broken or never made.
    Lost(ConnectionError),
}

/// What a QoS 1 publish carries.
#[derive(Debug, Clone, PartialEq)]
enum Sent {
    /// A decision of the outbox.
    Row { row: i64, camera: String },
    /// A decision that the outbox did not take.
    Unstored(Box<Decision>),
    /// State, availability, model or a reply.
    Word,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    Publishing,
    /// The last words are out.
    Farewell {
        until: Instant,
    },
    /// DISCONNECT is on its way.
    Leaving {
        until: Instant,
    },
}

struct Session<'speaker> {
    speaker: &'speaker mut Speaker,
    client: AsyncClient,
    connected_at: Option<Instant>,
    phase: Phase,
    disconnect_sent: bool,
    /// Handed to the client at QoS 1, in order, not yet numbered by it.
    handed: VecDeque<Sent>,
    /// In flight, by packet number.
    flying: HashMap<u16, Sent>,
    page: VecDeque<Waiting>,
    /// Row up to which the outbox was read.
    cursor: i64,
    /// Rows up to here were made before this connection.
    replay_mark: i64,
    window: usize,
    max_packet: usize,
    refused_at: Option<Instant>,
    read_failed_at: Option<Instant>,
    listeners: Listeners,
}

/// Runs one connection to its end. Also returns when the broker accepted it.
pub(super) async fn run(speaker: &mut Speaker, options: MqttOptions) -> (End, Option<Instant>) {
    let shared = Arc::clone(&speaker.shared);
    let (client, mut eventloop) = AsyncClient::new(options, REQUESTS);
    let (event_sender, mut events) = mpsc::channel(256);
    // Polled to the end, never cancelled half way: a cancelled poll can lose a flush.
    let poller = async move {
        loop {
            match eventloop.poll().await {
                // The receiver lives as long as this future.
                Ok(event) => drop(event_sender.send(event).await),
                Err(error) => return error,
            }
        }
    };
    tokio::pin!(poller);
    let mut session = Session::new(speaker, client);
    loop {
        shared.turn();
        let mut lost = None;
        tokio::select! {
            biased;
            Some(event) = events.recv() => session.handle(event),
            error = &mut poller => lost = Some(error),
            () = shared.wake.notified() => {}
            () = tokio::time::sleep(TICK) => {}
        }
        while let Ok(event) = events.try_recv() {
            session.handle(event);
        }
        let end = match lost {
            // The broker may close first once it has our DISCONNECT.
            Some(_) if matches!(session.phase, Phase::Leaving { .. }) => Some(End::Stopped),
            Some(error) => Some(End::Lost(error)),
            None => session.step(),
        };
        if let Some(end) = end {
            session.keep_unstored();
            if matches!(end, End::Stopped) {
                let in_order = session.connected_at.is_some();
                session.speaker.forget(Instant::now(), in_order);
                session.speaker.lose_unstored();
            }
            return (end, session.connected_at);
        }
    }
}

impl<'speaker> Session<'speaker> {
    fn new(speaker: &'speaker mut Speaker, client: AsyncClient) -> Self {
        Self {
            speaker,
            client,
            connected_at: None,
            phase: Phase::Publishing,
            disconnect_sent: false,
            handed: VecDeque::new(),
            flying: HashMap::new(),
            page: VecDeque::new(),
            cursor: 0,
            replay_mark: 0,
            window: WINDOW,
            max_packet: broker::MAX_PACKET,
            refused_at: None,
            read_failed_at: None,
            listeners: Listeners::new(Instant::now(), Duration::ZERO, 0),
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Incoming(Packet::ConnAck(connack)) => self.connected(&connack),
            // Number 0 is QoS 0.
            Event::Outgoing(Outgoing::Publish(number)) if number != 0 => match self.handed.pop_front() {
                Some(sent) => drop(self.flying.insert(number, sent)),
                None => tracing::error!(number, "client sent a publish that was not handed to it"),
            },
            Event::Outgoing(Outgoing::Disconnect) => self.disconnect_sent = true,
            Event::Incoming(Packet::PubAck(ack)) => self.acknowledged(&ack),
            Event::Incoming(Packet::Publish(publish)) => self.command(&publish),
            _ => {}
        }
    }

    fn connected(&mut self, connack: &ConnAck) {
        if let Some(limits) = &connack.properties {
            if let Some(receive_max) = limits.receive_max {
                self.window = usize::from(receive_max).saturating_sub(RESERVE).clamp(1, WINDOW);
            }
            if let Some(max_packet) = limits.max_packet_size {
                self.max_packet = self.max_packet.min(max_packet as usize);
            }
        }
        self.speaker.doubt();
        self.read_again();
        self.replay_mark = self.speaker.outbox.newest_row();
        let now = Instant::now();
        let inherited = if self.speaker.connections == 0 { self.speaker.inherited } else { 0 };
        self.speaker.connections += 1;
        self.listeners = Listeners::new(now, self.speaker.subscriber_wait, inherited);
        self.connected_at = Some(now);
        tracing::info!(waiting = self.speaker.outbox.len(), "broker connected");
        if self.client.try_subscribe(self.speaker.topics.commands(), QoS::AtLeastOnce).is_err() {
            tracing::warn!("commands could not be subscribed to");
        }
        self.say(self.speaker.topics.availability(), ONLINE.into());
        let news = self.speaker.shared.news(true);
        self.say_news(news);
        self.speaker.shared.set_connected(true);
    }

    fn acknowledged(&mut self, ack: &PubAck) {
        let Some(sent) = self.flying.remove(&ack.pkid) else { return };
        let taken = matches!(ack.reason, PubAckReason::Success | PubAckReason::NoMatchingSubscribers);
        match sent {
            Sent::Row { row, camera } if taken => {
                let somebody = ack.reason == PubAckReason::Success;
                let answer = self.listeners.answered(&camera, row, somebody, Instant::now());
                if answer == Answer::Stays {
                    return;
                }
                if somebody {
                    self.speaker.heard.insert(camera);
                }
                self.speaker.settle(row, Instant::now());
                if answer == Answer::Resume {
                    self.read_again();
                }
            }
            Sent::Unstored(_) if taken => self.speaker.shared.count_acknowledged(),
            Sent::Word if taken => {}
            Sent::Row { row, .. } => {
                self.refused_at = Some(Instant::now());
                tracing::error!(row, reason = ?ack.reason, "broker refused a decision; it stays in the outbox");
            }
            Sent::Unstored(decision) => self.speaker.shared.lose(&decision.result_id),
            Sent::Word => tracing::warn!(reason = ?ack.reason, "broker refused a message that is not a decision"),
        }
    }

    /// Does what there is to do; how the connection ends, if it shall.
    fn step(&mut self) -> Option<End> {
        let now = Instant::now();
        let stop = match self.speaker.shared.current_order() {
            Order::Abort => return Some(End::Aborted),
            Order::Stop { until } => Some(until),
            Order::Run => None,
        };
        if self.connected_at.is_none() {
            let hopeless = stop.is_some_and(|until| now >= until || !self.speaker.has_decisions());
            return hopeless.then_some(End::Stopped);
        }
        self.speaker.forget(now, false);
        match self.phase {
            Phase::Publishing => {
                let news = self.speaker.shared.news(false);
                self.say_news(news);
                self.fill(now);
                let done = |session: &Self| {
                    !session.speaker.has_decisions()
                        && session.handed.iter().chain(session.flying.values()).all(|sent| *sent == Sent::Word)
                };
                if stop.is_some_and(|until| now >= until || done(self)) {
                    let state = self.speaker.shared.last_state(now_us());
                    self.say_json(self.speaker.topics.state(), &state);
                    self.say(self.speaker.topics.availability(), STOPPED.into());
                    self.phase = Phase::Farewell { until: now + FAREWELL };
                }
                None
            }
            Phase::Farewell { until } => {
                let said = !self.handed.iter().chain(self.flying.values()).any(|sent| *sent == Sent::Word);
                if said || now >= until {
                    if self.client.try_disconnect().is_err() {
                        return Some(End::Stopped);
                    }
                    self.phase = Phase::Leaving { until: now + FAREWELL };
                }
                None
            }
            Phase::Leaving { until } => (self.disconnect_sent || now >= until).then_some(End::Stopped),
        }
    }

    /// Puts decisions that stand only here back where the next connection finds them.
    fn keep_unstored(&mut self) {
        let handed = self.handed.drain(..);
        for sent in handed.chain(self.flying.drain().map(|(_, sent)| sent)) {
            if let Sent::Unstored(decision) = sent {
                self.speaker.shared.submit_directly(*decision);
            }
        }
    }
}
