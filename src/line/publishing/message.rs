//! Payloads besides the decision itself, and the published schemas.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::{Deserialize, Serialize};

use super::trigger::TriggerCommand;
use crate::inspection::{Decision, ModelIdentity};

/// States of the station after OPC 40100-1 (machine vision).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StationState {
    /// Starting: nothing is ready.
    Preoperational,
    /// Configuration and model are loaded.
    Initialized,
    /// Cameras and broker are ready.
    Ready,
    /// Inspecting.
    Executing,
    /// Stopped in order.
    Halted,
    /// Cannot inspect; see the detail.
    Error,
}

impl StationState {
    /// The word used on the wire and in tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Preoperational => "preoperational",
            Self::Initialized => "initialized",
            Self::Ready => "ready",
            Self::Executing => "executing",
            Self::Halted => "halted",
            Self::Error => "error",
        }
    }
}

/// Payload of `state`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StateMessage {
    /// The state.
    pub state: StationState,
    /// What a person should know about it; null where there is nothing to say.
    pub detail: Option<String>,
    /// Since when, microseconds since the Unix epoch, UTC.
    pub since_us: i64,
}

/// Payload of `model`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ModelMessage {
    /// Which model decides.
    #[serde(flatten)]
    pub model: ModelIdentity,
    /// Execution provider that it really runs on.
    pub provider: String,
    /// Since when, microseconds since the Unix epoch, UTC.
    pub since_us: i64,
}

/// Counters of a running line, published on `stats` and shown at the end.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Stats {
    /// Frames grabbed, all cameras.
    pub frames: u64,
    /// Beside these, frames of an empty belt, which get no decision.
    #[serde(default)]
    pub empty: u64,
    /// Copies of frames at full size: where they came, for want of buffers or by their form, and for the archive.
    #[serde(default)]
    pub copied: u64,
    /// Frames that should have been archived and were not: the queue was full, or disk or memory ran short.
    #[serde(default)]
    pub not_archived: u64,
    /// Decisions made.
    pub decisions: u64,
    /// Of these accepted.
    pub accept: u64,
    /// Of these rejected.
    pub reject: u64,
    /// Of these suspect.
    pub suspect: u64,
    /// Of these not inspected.
    pub not_inspected: u64,
    /// Decisions that the broker acknowledged.
    pub acknowledged: u64,
    /// Decisions waiting in the outbox.
    pub outbox: u64,
    /// Age of the oldest of them, seconds; null where none waits.
    #[serde(default)]
    pub outbox_oldest_age_s: Option<f64>,
    /// Decisions published again or late, out of the outbox.
    #[serde(default)]
    pub replayed: u64,
    /// Decisions that expired in the outbox unacknowledged.
    #[serde(default)]
    pub expired: u64,
    /// Of these rejects.
    #[serde(default)]
    pub expired_rejects: u64,
    /// Decisions that neither the outbox nor the broker took.
    #[serde(default)]
    pub lost: u64,
    /// Combined verdicts about parts, not among the decisions.
    #[serde(default)]
    pub parts: u64,
    /// Batches scored.
    pub batches: u64,
    /// Frames a second since the last message.
    pub frames_per_second: f64,
    /// Capture to decision, milliseconds, 50th percentile since the last message.
    pub latency_p50_ms: f64,
    /// Capture to decision, milliseconds, 99th percentile since the last message.
    pub latency_p99_ms: f64,
    /// Frames per camera.
    pub cameras: BTreeMap<String, u64>,
    /// What was missed per camera that was ever gone.
    #[serde(default)]
    pub gaps: BTreeMap<String, Gaps>,
}

/// The times in which a camera was gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Gaps {
    /// How often it was lost.
    pub losses: u64,
    /// How long it was gone altogether, milliseconds; an ongoing gap counts up to now.
    pub gone_ms: u64,
    /// Frames and triggered parts that got lost, with it or on their way; each has its decision.
    pub lost: u64,
}

/// Payload of a reply to a command.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CommandReply {
    /// Name of the command.
    pub command: String,
    /// Whether it was done.
    pub ok: bool,
    /// What it gave; null where it was not done.
    pub result: Option<serde_json::Value>,
    /// Why it was not done; null where it was.
    pub error: Option<String>,
}

/// Messages whose schema is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message {
    /// On `{camera}/decision` and `{camera}/last`.
    Decision,
    /// On `state`.
    State,
    /// On `model`.
    Model,
    /// On `stats`.
    Stats,
    /// On the requester's response topic.
    Reply,
    /// To the line on `cmd/trigger`.
    Trigger,
    /// On `{part}/part`.
    Part,
}

/// JSON schema (draft 2020-12) of a message as this program writes it. A later version may add
/// fields, so unknown ones are allowed.
pub fn schema(message: Message) -> serde_json::Value {
    let generator = SchemaSettings::draft2020_12().for_serialize().into_generator();
    let mut schema = match message {
        Message::Decision | Message::Part => generator.into_root_schema_for::<Decision>(),
        Message::Trigger => SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<TriggerCommand>(),
        Message::State => generator.into_root_schema_for::<StateMessage>(),
        Message::Model => generator.into_root_schema_for::<ModelMessage>(),
        Message::Stats => generator.into_root_schema_for::<Stats>(),
        Message::Reply => generator.into_root_schema_for::<CommandReply>(),
    }
    .to_value();
    // A part's verdict is a decision that always says what it was made of.
    if message == Message::Part
        && let Some(required) = schema["required"].as_array_mut()
    {
        required.push("combined".into());
    }
    schema
}
