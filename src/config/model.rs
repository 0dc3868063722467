//! The configuration's shape. Every table refuses unknown keys; every unit stands in the name.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::batching::Batching;
use super::part::{PartConfig, Presence};
use super::scoring::ModelConfig;
use crate::inspection::Rectangle;

/// Everything that `linegate run`, `check` and `retrain` read. Relative paths are relative to the
/// configuration file's folder once it is loaded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where the line stands; part of every topic.
    pub station: Station,
    /// Which model inspects, and on what.
    pub model: ModelConfig,
    /// How frames are grouped for the model.
    #[serde(default)]
    pub batching: Batching,
    /// What verdicts mean for the part.
    #[serde(default)]
    pub decisions: Decisions,
    /// The cameras, at least one.
    pub camera: Vec<CameraConfig>,
    /// Parts that several cameras or frames see; each gets one combined verdict.
    #[serde(default)]
    pub part: Vec<PartConfig>,
    /// Where decisions go.
    #[serde(default)]
    pub mqtt: Mqtt,
    /// Where decisions wait for their acknowledgement.
    #[serde(default)]
    pub outbox: Outbox,
    /// What is kept for review.
    #[serde(default)]
    pub archive: Option<Archive>,
    /// How the model is retrained.
    #[serde(default)]
    pub retrain: Option<Retrain>,
}

/// Names used in topics: letters, digits, `-`, `_` and `.`, 1 to 64 characters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Station {
    /// Site.
    pub site: String,
    /// Line.
    pub line: String,
    /// Station.
    pub station: String,
}

/// What becomes of a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// Take the part out.
    Reject,
    /// Let the part pass.
    Accept,
}

/// Policy for the verdicts between good and bad.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Decisions {
    /// Parts between the two boundaries.
    pub suspect: Policy,
    /// Parts that were not inspected.
    pub not_inspected: Policy,
}

impl Default for Decisions {
    fn default() -> Self {
        Self { suspect: Policy::Reject, not_inspected: Policy::Reject }
    }
}

/// One camera.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CameraConfig {
    /// Name used in topics: letters, digits, `-`, `_` and `.`, 1 to 64 characters; unique.
    pub name: String,
    /// Launch description: a name from the pipelines folder (`folder`, `file`, `test`, `still`, `v4l2`,
    /// `rtsp`, `genicam`) or a path to a `.launch` file.
    pub pipeline: String,
    /// Values for the `{placeholders}` of the launch description. `location` is a path, relative to
    /// the configuration file's folder, unless it has `://`.
    #[serde(default)]
    pub parameters: BTreeMap<String, toml::Value>,
    /// How long after capture a decision is useful, 1 to 3600000; none means always.
    #[serde(default)]
    pub deadline_ms: Option<u64>,
    /// Region of interest in pixels of the full frame; none takes the bundle's.
    #[serde(default)]
    pub region_of_interest: Option<Rectangle>,
    /// Without a frame for so long the camera counts as lost, 100 to 86400000; none waits forever
    /// (a triggered line that pauses).
    #[serde(default)]
    pub watchdog_ms: Option<u64>,
    /// What makes a frame of this camera a part.
    #[serde(default)]
    pub trigger: TriggerMode,
    /// How long a software trigger waits for its frame, 1 to 3600000; then the part is
    /// `not_inspected`.
    #[serde(default = "default_trigger_timeout_ms")]
    pub trigger_timeout_ms: u64,
    /// What an empty belt looks like: such frames are no parts; none takes every frame for one.
    #[serde(default)]
    pub presence: Option<Presence>,
    /// Buffers of this camera that frames may wait in at the same time, 0 to 1024; more are copied first. A driver
    /// or decoder has few, and a camera that gets none back stands still.
    #[serde(default = "default_lent_buffers")]
    pub lent_buffers: usize,
    /// What happens at the end of the stream (a folder or file camera): stop when every camera
    /// ended, or treat it as a loss and reconnect.
    #[serde(default)]
    pub ends: bool,
}

fn default_trigger_timeout_ms() -> u64 {
    1000
}

/// Enough for a frame that is scored in every session of a usual line and one that waits.
fn default_lent_buffers() -> usize {
    4
}

/// What makes a frame a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TriggerMode {
    /// Every frame is inspected as it comes.
    #[default]
    Free,
    /// A signal at the camera: one buffer is one part, numbered by the trigger.
    Hardware,
    /// The command `cmd/trigger`: the next frame is the part that it names, others are none.
    Software,
}

/// Where decisions go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Mqtt {
    /// The broker.
    pub broker: Broker,
    /// Client identifier; none makes one from site, line and station.
    pub client_id: Option<String>,
    /// User name.
    pub username: Option<String>,
    /// File that holds the password on its first line.
    pub password_file: Option<PathBuf>,
    /// Environment variable that holds the password.
    pub password_environment: Option<String>,
    /// File that holds, on its first line, the secret that commands must carry; none takes every
    /// command that the broker lets through.
    pub command_secret_file: Option<PathBuf>,
    /// Environment variable that holds that secret.
    pub command_secret_environment: Option<String>,
    /// TLS; none is plain TCP.
    pub tls: Option<Tls>,
    /// Keep-alive, 5 to 3600.
    pub keep_alive_s: u16,
    /// Seconds between two messages on `stats`, 1 to 3600.
    pub stats_interval_s: u64,
    /// How long a stopping line waits for acknowledgements, 0 to 600000.
    pub drain_ms: u64,
    /// MQTT 5 message expiry of a decision where the camera has no deadline, 1 to 86400.
    pub expiry_s: u32,
    /// How long after connecting decisions wait in the outbox for a subscriber that was there before
    /// the connection was lost, 0 to 600: a broker that forgot its sessions acknowledges what nobody
    /// gets.
    pub subscriber_wait_s: u64,
}

impl Default for Mqtt {
    fn default() -> Self {
        Self {
            broker: Broker::Embedded { listen: "127.0.0.1:1883".into() },
            client_id: None,
            username: None,
            password_file: None,
            password_environment: None,
            command_secret_file: None,
            command_secret_environment: None,
            tls: None,
            keep_alive_s: 15,
            stats_interval_s: 5,
            drain_ms: 5000,
            expiry_s: 60,
            subscriber_wait_s: 10,
        }
    }
}

/// Which broker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, tag = "kind", rename_all = "snake_case")]
pub enum Broker {
    /// One inside this process.
    Embedded {
        /// Address and port to listen on.
        listen: String,
    },
    /// One elsewhere.
    External {
        /// Host name or address.
        host: String,
        /// Port, 1 to 65535.
        port: u16,
    },
}

/// TLS towards an external broker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// PEM file of the certificate authority; none takes the system's.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// PKCS#12 file with client certificate and key.
    #[serde(default)]
    pub client_pkcs12_file: Option<PathBuf>,
    /// File that holds the PKCS#12 password on its first line.
    #[serde(default)]
    pub client_password_file: Option<PathBuf>,
}

/// Where decisions wait for their acknowledgement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Outbox {
    /// The queue's file.
    pub file: PathBuf,
    /// Decisions kept at most, 1 to 100000000; beyond, accepts expire first, rejects last.
    pub max_decisions: u64,
    /// How long a decision is kept at most, hours, 1 to 87600; older ones expire, counted.
    pub max_age_h: u64,
    /// What a decision survives once it is made.
    pub durability: Durability,
}

/// What a decision survives once it is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// The death of the process at any moment. A power cut may cost the last seconds.
    Process,
    /// A power cut, too: every commit waits for the disk.
    Power,
}

impl Default for Outbox {
    fn default() -> Self {
        Self { file: "outbox.sqlite".into(), max_decisions: 1_000_000, max_age_h: 720, durability: Durability::Process }
    }
}

/// What is kept for review.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Archive {
    /// The folder.
    pub directory: PathBuf,
    /// Most that the folder may hold, MiB, 1 to 1000000000; the oldest accepts go first.
    #[serde(default = "default_quota_mib")]
    pub quota_mib: u64,
    /// Share of accepts that is kept too, 0 to 1.
    #[serde(default)]
    pub accept_sample: f64,
    /// Space that the archive leaves free on its disk, MiB, 0 to 1000000000: below, frames are not
    /// archived, so that the outbox has room.
    #[serde(default = "default_min_free_mib")]
    pub min_free_mib: u64,
    /// Memory that must be available for a frame to be archived, MiB, 0 to 1000000.
    #[serde(default = "default_min_memory_mib")]
    pub min_memory_mib: u64,
}

fn default_min_free_mib() -> u64 {
    512
}

fn default_min_memory_mib() -> u64 {
    256
}

fn default_quota_mib() -> u64 {
    10_240
}

/// How the model is retrained at night. Needs `model.registry`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retrain {
    /// Base data set, MVTec layout.
    pub base: PathBuf,
    /// Groups file of the base set.
    #[serde(default)]
    pub base_groups: Option<PathBuf>,
    /// Frames a person has sorted: `good/` and a folder per defect type, masks beside them in
    /// `ground_truth/TYPE/NAME_mask.png`.
    pub reviewed: PathBuf,
    /// Gate set, MVTec layout: its `test` pictures judge champion and challenger; neither trains
    /// on them.
    pub gate: PathBuf,
    /// Training configuration file.
    #[serde(default)]
    pub training: Option<PathBuf>,
    /// Where reports go.
    pub reports: PathBuf,
    /// False rejects on the gate set allowed above the champion's, share, 0 to 1.
    #[serde(default)]
    pub false_reject_slack: f64,
    /// Whether training starts from the active model's flows, with half of the steps, where they fit;
    /// else it starts afresh.
    #[serde(default = "default_warm_start")]
    pub warm_start: bool,
    /// File with the private key that new models are signed with, where the line takes only signed ones.
    #[serde(default)]
    pub private_key_file: Option<PathBuf>,
}

fn default_warm_start() -> bool {
    true
}
