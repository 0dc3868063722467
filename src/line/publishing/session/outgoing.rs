//! Decisions on their way out: read from the outbox in order, published as far as the window allows.

use std::time::Instant;

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::PublishProperties;

use super::super::now_us;
use super::words::{expiry_s, fit, json_properties};
use super::{OFFER_AGAIN, PAGE, READ_AGAIN, Sent, Session};
use crate::inspection::Decision;

impl Session<'_> {
    /// Publishes decisions as far as the window allows: those that the outbox did not take, then
    /// the outbox in order.
    pub(super) fn fill(&mut self, now: Instant) {
        if self.refused_at.is_some_and(|at| now.duration_since(at) > OFFER_AGAIN) {
            self.refused_at = None;
            self.read_again();
        }
        if self.listeners.gives_up(now) {
            self.read_again();
        }
        for row in self.listeners.due(now) {
            self.offer(row);
        }
        while self.handed.len() + self.flying.len() < self.window {
            if let Some(decision) = self.speaker.shared.take_direct() {
                self.publish(decision, None);
                continue;
            }
            if self.page.is_empty() && !self.read(now) {
                return;
            }
            if let Some(waiting) = self.page.pop_front() {
                self.cursor = waiting.row;
                let is_it = |sent: &Sent| matches!(sent, Sent::Row { row, .. } if *row == waiting.row);
                let had = self.speaker.heard.contains(&waiting.decision.camera);
                if !self.speaker.is_settled(waiting.row)
                    && !self.handed.iter().chain(self.flying.values()).any(is_it)
                    && self.listeners.admit(waiting.row, &waiting.decision.camera, had, now)
                {
                    self.publish(waiting.decision, Some(waiting.row));
                }
            }
        }
    }

    /// Publishes one row once more.
    fn offer(&mut self, row: i64) {
        let found = self.speaker.outbox.page(row - 1, 1).ok().and_then(|page| page.into_iter().next());
        match found.filter(|waiting| waiting.row == row) {
            Some(waiting) => self.publish(waiting.decision, Some(row)),
            // Expired meanwhile.
            None => {
                self.listeners.gone(row);
                self.read_again();
            }
        }
    }

    /// Begins again at the oldest row; what is under way is passed over.
    pub(super) fn read_again(&mut self) {
        // Acknowledged rows still on their way to the disk would be published again.
        if let Err(error) = self.speaker.outbox.settle() {
            tracing::error!(%error, "outbox could not settle");
        }
        self.page.clear();
        self.cursor = 0;
    }

    /// Reads the next page; whether there is something on it.
    fn read(&mut self, now: Instant) -> bool {
        if self.cursor >= self.speaker.outbox.newest_row()
            || self.read_failed_at.is_some_and(|at| now.duration_since(at) < READ_AGAIN)
        {
            return false;
        }
        match self.speaker.outbox.page(self.cursor, PAGE) {
            Ok(page) => self.page = page.into(),
            Err(error) => {
                tracing::error!(%error, "outbox could not be read; trying again");
                self.read_failed_at = Some(now);
            }
        }
        !self.page.is_empty()
    }

    fn publish(&mut self, mut decision: Decision, row: Option<i64>) {
        let speaker = &mut *self.speaker;
        let replayed = row.is_some_and(|row| row <= self.replay_mark || row <= speaker.published_row);
        decision.published_us = now_us();
        decision.replayed = replayed;
        decision.age_ms = replayed.then(|| ((decision.published_us - decision.decided_us).max(0) / 1000) as u64);
        let topic = match decision.combined {
            Some(_) => speaker.topics.part(&decision.camera),
            None => speaker.topics.decision(&decision.camera),
        };
        let Some(payload) = fit(&mut decision, self.max_packet.saturating_sub(topic.len() + 64)) else {
            tracing::error!(
                result_id = decision.result_id,
                max_packet = self.max_packet,
                "decision is larger than the broker takes; it stays in the outbox"
            );
            self.refused_at = Some(Instant::now());
            return;
        };
        let properties = PublishProperties {
            message_expiry_interval: Some(expiry_s(&decision, speaker.expiry_s)),
            ..json_properties()
        };
        let last = speaker.topics.last(&decision.camera);
        let sent = match row {
            Some(row) => Sent::Row { row, camera: decision.camera.clone() },
            None => Sent::Unstored(Box::new(decision.clone())),
        };
        if self.client.try_publish_with_properties(topic, QoS::AtLeastOnce, false, payload.clone(), properties).is_err()
        {
            // The window keeps the requests below their bound, so this is a camera's name that
            // makes no topic.
            tracing::error!(result_id = decision.result_id, camera = decision.camera, "decision cannot be published");
            self.refused_at = Some(Instant::now());
            return;
        }
        self.handed.push_back(sent);
        if replayed {
            speaker.shared.count_replayed();
        }
        let Some(row) = row else { return };
        speaker.published_row = speaker.published_row.max(row);
        let last_row = speaker.last_rows.entry(decision.camera).or_default();
        if row > *last_row {
            *last_row = row;
            // Not acknowledged: the next decision makes it good.
            if self.client.try_publish_with_properties(last, QoS::AtMostOnce, true, payload, json_properties()).is_err()
            {
                tracing::warn!("last decision could not be retained");
            }
        }
    }
}
