//! What a session says beside decisions, and how messages are dressed.

use std::time::Instant;

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Publish, PublishProperties};
use serde::Serialize;

use super::super::commands;
use super::super::message::CommandReply;
use super::super::shared::News;
use super::super::trigger::{self, ReplyTo, TriggerRequest};
use super::{RESERVE, Sent, Session};
use crate::inspection::Decision;

impl Session<'_> {
    pub(super) fn say_news(&mut self, news: News) {
        for state in &news.states {
            self.say_json(self.speaker.topics.state(), state);
        }
        if let Some(model) = &news.model {
            self.say_json(self.speaker.topics.model(), model);
        }
        if let Some(stats) = &news.stats
            && let Ok(payload) = serde_json::to_vec(stats)
        {
            let topic = self.speaker.topics.stats();
            // Counters are repeated in seconds; one that does not get through is no loss.
            drop(self.client.try_publish_with_properties(topic, QoS::AtMostOnce, false, payload, json_properties()));
        }
        self.say_replies(news.replies);
    }

    pub(super) fn say_replies(&mut self, replies: Vec<(ReplyTo, CommandReply)>) {
        for (to, reply) in replies {
            self.say_reply(to, &reply);
        }
    }

    pub(super) fn say_json(&mut self, topic: String, message: &impl Serialize) {
        match serde_json::to_vec(message) {
            Ok(payload) => self.say(topic, payload),
            Err(error) => tracing::error!(%error, topic, "message cannot be written as JSON"),
        }
    }

    /// Publishes a retained message that is not a decision.
    pub(super) fn say(&mut self, topic: String, payload: Vec<u8>) {
        match self.client.try_publish(topic, QoS::AtLeastOnce, true, payload) {
            Ok(()) => self.handed.push_back(Sent::Word),
            Err(error) => tracing::warn!(%error, "message could not be handed to the client"),
        }
    }

    pub(super) fn command(&mut self, publish: &Publish) {
        let Ok(topic) = std::str::from_utf8(&publish.topic) else { return };
        let Some(name) = self.speaker.topics.command(topic) else { return };
        if publish.retain {
            tracing::warn!(name, "retained command ignored: it would come again at every connection");
            return;
        }
        let reply_to = self.reply_to(publish);
        if name == "trigger" {
            return self.trigger(&publish.payload, reply_to);
        }
        if !self.speaker.bucket.take(Instant::now()) {
            tracing::warn!("command ignored: too many in a short time");
            return;
        }
        let station = commands::Station { boot_id: &self.speaker.boot_id, state: self.speaker.shared.state() };
        let given = publish.properties.as_ref().map(|given| given.user_properties.as_slice()).unwrap_or_default();
        let may =
            self.speaker.command_secret.as_ref().is_none_or(|secret| {
                given.iter().any(|(key, value)| key == commands::SECRET_PROPERTY && secret.is(value))
            });
        let reply = if may { commands::answer(name, &publish.payload, &station) } else { commands::forbid(name) };
        tracing::info!(command = reply.command, ok = reply.ok, "command answered");
        if let Some(to) = reply_to {
            self.say_reply(to, &reply);
        }
    }

    /// Where the requester wants the answer, if that is a place to answer to.
    fn reply_to(&self, publish: &Publish) -> Option<ReplyTo> {
        let properties = publish.properties.as_ref()?;
        let topic = properties.response_topic.clone()?;
        if !self.speaker.topics.may_reply_to(&topic) {
            tracing::warn!(topic, "reply not sent: the response topic is not one to reply to");
            return None;
        }
        Some(ReplyTo { topic, correlation_data: properties.correlation_data.as_ref().map(|data| data.to_vec()) })
    }

    /// Hands a trigger to the line, which answers when the part is decided; refusals are answered
    /// here.
    fn trigger(&mut self, payload: &[u8], reply_to: Option<ReplyTo>) {
        let allowed = self.speaker.trigger_bucket.take(Instant::now());
        let handed = match trigger::read(payload) {
            Ok(_) if !allowed => Err("too many triggers in a short time".to_owned()),
            Ok(command) => {
                let request = TriggerRequest { command, reply_to: reply_to.clone() };
                trigger::hand_over(self.speaker.shared.trigger_line(), request)
            }
            Err(problem) => Err(problem),
        };
        if let Err(problem) = handed {
            tracing::error!(problem, "trigger refused: its part is not inspected");
            if let Some(to) = reply_to {
                self.say_reply(to, &commands::refuse("trigger", problem));
            }
        }
    }

    /// Publishes the answer to a command.
    pub(super) fn say_reply(&mut self, to: ReplyTo, reply: &CommandReply) {
        if self.handed.len() + self.flying.len() >= self.window + RESERVE {
            tracing::warn!("reply not sent: the broker does not acknowledge");
            return;
        }
        let correlation_data = to.correlation_data.map(Into::into);
        let properties = PublishProperties { correlation_data, ..json_properties() };
        let Ok(payload) = serde_json::to_vec(reply) else { return };
        if self.client.try_publish_with_properties(to.topic, QoS::AtLeastOnce, false, payload, properties).is_ok() {
            self.handed.push_back(Sent::Word);
        }
    }
}

pub(super) fn json_properties() -> PublishProperties {
    PublishProperties {
        payload_format_indicator: Some(1),
        content_type: Some("application/json".into()),
        ..PublishProperties::default()
    }
}

/// How long the broker keeps a decision for a subscriber, seconds: as long as it is useful. A
/// replayed one is for the record only, whatever the deadline was.
pub(super) fn expiry_s(decision: &Decision, default_s: u32) -> u32 {
    match decision.deadline_ms {
        Some(deadline_ms) if !decision.replayed => u32::try_from(deadline_ms.div_ceil(1000)).unwrap_or(u32::MAX).max(1),
        _ => default_s,
    }
}

/// The payload in at most `limit` bytes: with fewer regions where needed, those of the highest
/// peaks kept; none where even that is too much.
pub(super) fn fit(decision: &mut Decision, limit: usize) -> Option<Vec<u8>> {
    let given = decision.regions.len();
    loop {
        let payload = serde_json::to_vec(decision).ok()?;
        if payload.len() <= limit {
            if decision.regions.len() < given {
                let kept = decision.regions.len();
                tracing::warn!(result_id = decision.result_id, given, kept, "decision published with fewer regions");
            }
            return Some(payload);
        }
        if decision.regions.is_empty() {
            return None;
        }
        let half = decision.regions.len() / 2;
        decision.regions.truncate(half);
    }
}
