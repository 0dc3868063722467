//! `linegate watch`.

mod labels;
mod tally;

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::inspection::{Combined, Decision, Reason, Verdict};
use crate::line::publishing::{Observation, STOPPED, Subscriber, SubscriberOptions};
use labels::Labels;
use tally::Tally;

/// Arguments of `linegate watch`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Host of the broker
    #[arg(long, default_value = "127.0.0.1")]
    host: String,
    /// Port of the broker
    #[arg(long, default_value_t = 1883, value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,
    /// Only this site
    #[arg(long)]
    site: Option<String>,
    /// Only this line
    #[arg(long)]
    line: Option<String>,
    /// Only this station
    #[arg(long)]
    station: Option<String>,
    /// User name at the broker
    #[arg(long)]
    username: Option<String>,
    /// File that holds the password on its first line
    #[arg(long, requires = "username")]
    password_file: Option<PathBuf>,
    /// CSV with `part_id,label` (good or defect): sums up against it at the end
    #[arg(long)]
    labels: Option<PathBuf>,
    /// One JSON object a line instead of the table
    #[arg(long)]
    json: bool,
    /// End after so many decisions
    #[arg(long)]
    count: Option<u64>,
    /// End after so many seconds
    #[arg(long)]
    seconds: Option<f64>,
}

/// How often the status line is drawn.
const STATUS: Duration = Duration::from_secs(1);

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let labels = arguments.labels.as_deref().map(Labels::read).transpose()?;
    let until = match arguments.seconds {
        Some(seconds) => {
            let patience = Duration::try_from_secs_f64(seconds).context("--seconds must be a number of 0 or more")?;
            Some(Instant::now() + patience)
        }
        None => None,
    };
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&interrupted)).context("signals cannot be caught")?;
    }
    let subscriber = Subscriber::start(&SubscriberOptions {
        host: arguments.host.clone(),
        port: arguments.port,
        site: arguments.site.clone(),
        line: arguments.line.clone(),
        station: arguments.station.clone(),
        username: arguments.username.clone(),
        password_file: arguments.password_file.clone(),
    })?;
    let mut table = Table::new(arguments.json);
    let mut tally = Tally::new(Instant::now());
    let mut stations = Stations::default();
    let mut status_at = Instant::now() + STATUS;
    while !interrupted.load(Ordering::Relaxed)
        && until.is_none_or(|until| Instant::now() < until)
        && arguments.count.is_none_or(|count| tally.decisions() < count)
        && !stations.all_stopped()
    {
        if let Some(observation) = subscriber.next(Duration::from_millis(100)) {
            stations.observe(&observation);
            if let Observation::Decision(decision) = &observation {
                let label = labels.as_ref().and_then(|labels| labels.of(decision));
                if !tally.count(decision, label, Instant::now()) {
                    continue;
                }
            }
            table.show(&observation, &tally)?;
        }
        if Instant::now() >= status_at {
            status_at = Instant::now() + STATUS;
            table.status(&tally)?;
        }
    }
    drop(subscriber);
    table.finish(&tally, labels.is_some())?;
    Ok(ExitCode::SUCCESS)
}

/// Which stations were seen at work, and which of these have stopped since.
#[derive(Debug, Default)]
struct Stations {
    running: BTreeMap<String, bool>,
}

impl Stations {
    fn observe(&mut self, observation: &Observation) {
        match observation {
            Observation::Decision(decision) => {
                let station = format!("{}/{}/{}", decision.site, decision.line, decision.station);
                self.running.entry(station).or_insert(true);
            }
            // A station that was never seen running stopped before we came: it may start yet.
            Observation::Availability { station, word } if word == STOPPED => {
                if let Some(running) = self.running.get_mut(station) {
                    *running = false;
                }
            }
            Observation::Availability { station, .. } => {
                self.running.insert(station.clone(), true);
            }
            _ => {}
        }
    }

    fn all_stopped(&self) -> bool {
        !self.running.is_empty() && self.running.values().all(|running| !running)
    }
}

/// What is printed, and how.
#[derive(Debug)]
struct Table {
    json: bool,
    terminal: bool,
    header_due: bool,
    status_drawn: bool,
}

impl Table {
    fn new(json: bool) -> Self {
        Self { json, terminal: std::io::stdout().is_terminal(), header_due: true, status_drawn: false }
    }

    fn show(&mut self, observation: &Observation, tally: &Tally) -> anyhow::Result<()> {
        if self.json {
            return self.line(&json(observation)?);
        }
        match observation {
            // A part's verdict stands among those of its frames, and is none of them: it is not counted.
            Observation::Decision(decision) | Observation::Part(decision) => {
                if std::mem::take(&mut self.header_due) {
                    self.line(&format!(
                        "{:<12} {:<12} {:<28} {:<14} {:>17} {:>11}",
                        "time (UTC)", "camera", "part", "verdict", "score/threshold", "latency"
                    ))?;
                }
                let row = self.row(decision);
                self.line(&row)?;
                if self.terminal { self.status(tally) } else { Ok(()) }
            }
            Observation::Connected => self.note("connected to the broker"),
            Observation::Disconnected { reason } => self.note(&format!("no broker: {reason}; trying again")),
            Observation::Availability { station, word } => self.note(&format!("{station} is {word}")),
            Observation::State { station, message } => {
                let detail = message.detail.as_ref().map(|detail| format!(": {detail}")).unwrap_or_default();
                self.note(&format!("{station} is {}{detail}", message.state.as_str()))
            }
            Observation::Model { station, message } => self.note(&format!(
                "{station} decides with {} {} on {}",
                message.model.name, message.model.version, message.provider
            )),
            Observation::Stats { .. } => Ok(()),
            Observation::Unreadable { topic, error } => self.note(&format!("unreadable message on {topic}: {error}")),
        }
    }

    fn row(&self, decision: &Decision) -> String {
        let colour = match decision.verdict {
            _ if !self.terminal => "",
            Verdict::Accept => "\x1b[32m",
            Verdict::Reject => "\x1b[31m",
            Verdict::Suspect => "\x1b[33m",
            Verdict::NotInspected => "\x1b[35m",
        };
        let reset = if colour.is_empty() { "" } else { "\x1b[0m" };
        let number = |value: Option<f32>| value.map_or_else(|| "-".into(), |value| format!("{value:.2}"));
        let mut notes = Vec::new();
        if decision.replayed {
            notes.push(format!("replayed after {} ms", decision.age_ms.unwrap_or(0)));
        }
        if let Some(combined) = &decision.combined {
            notes.push(combined_note(combined));
        }
        for reason in &decision.reasons {
            if let Reason::NotInspected { cause } = reason {
                notes.push(format!("{cause:?}").to_lowercase());
            }
        }
        format!(
            "{:<12} {:<12} {:<28} {colour}{:<14}{reset} {:>17} {:>8.1} ms  {}",
            time_of_day(decision.decided_us),
            shorten(&decision.camera, 12),
            shorten(decision.part_id.as_deref().unwrap_or("-"), 28),
            decision.verdict,
            format!("{}/{}", number(decision.image_score), number(decision.threshold)),
            tally::latency_ms(decision),
            notes.join(", ")
        )
        .trim_end()
        .to_owned()
    }

    /// Redraws the status line on a terminal; elsewhere only the end is summed up.
    fn status(&mut self, tally: &Tally) -> anyhow::Result<()> {
        if self.terminal && !self.json {
            let mut out = std::io::stdout().lock();
            write!(out, "\r\x1b[2K{}", tally.status(Instant::now()))?;
            out.flush()?;
            self.status_drawn = true;
        }
        Ok(())
    }

    fn note(&mut self, text: &str) -> anyhow::Result<()> {
        self.line(&format!("# {text}"))
    }

    fn line(&mut self, text: &str) -> anyhow::Result<()> {
        let mut out = std::io::stdout().lock();
        if std::mem::take(&mut self.status_drawn) {
            write!(out, "\r\x1b[2K")?;
        }
        writeln!(out, "{text}").context("the output is closed")?;
        out.flush()?;
        Ok(())
    }

    fn finish(&mut self, tally: &Tally, labelled: bool) -> anyhow::Result<()> {
        if self.json {
            return self.line(&serde_json::to_string(&tally.summary(Instant::now(), labelled))?);
        }
        self.line("")?;
        let status = tally.status(Instant::now());
        self.line(&status)?;
        if labelled {
            for line in tally.against_labels() {
                self.line(&line)?;
            }
        }
        Ok(())
    }
}

fn json(observation: &Observation) -> anyhow::Result<String> {
    let value = match observation {
        Observation::Decision(decision) => serde_json::json!({"kind": "decision", "decision": decision}),
        Observation::Part(part) => serde_json::json!({"kind": "part", "part": part}),
        Observation::Connected => serde_json::json!({"kind": "connected"}),
        Observation::Disconnected { reason } => serde_json::json!({"kind": "disconnected", "reason": reason}),
        Observation::State { station, message } => {
            serde_json::json!({"kind": "state", "station": station, "message": message})
        }
        Observation::Availability { station, word } => {
            serde_json::json!({"kind": "availability", "station": station, "word": word})
        }
        Observation::Model { station, message } => {
            serde_json::json!({"kind": "model", "station": station, "message": message})
        }
        Observation::Stats { station, message } => {
            serde_json::json!({"kind": "stats", "station": station, "message": message})
        }
        Observation::Unreadable { topic, error } => {
            serde_json::json!({"kind": "unreadable", "topic": topic, "error": error})
        }
    };
    serde_json::to_string(&value).context("the message cannot be written as JSON")
}

fn time_of_day(us: i64) -> String {
    let ms = us.div_euclid(1000).rem_euclid(86_400_000);
    format!("{:02}:{:02}:{:02}.{:03}", ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60, ms % 1000)
}

/// What a part's verdict was made of.
fn combined_note(combined: &Combined) -> String {
    let said = combined.cameras.iter().map(|vote| format!("{} {}", shorten(&vote.camera, 12), vote.verdict));
    format!("whole part: {}", said.collect::<Vec<_>>().join(", "))
}

/// The end of a long text is what tells parts apart. Control characters must not reach a terminal.
fn shorten(text: &str, width: usize) -> String {
    let characters: Vec<char> =
        text.chars().map(|character| if character.is_control() { '?' } else { character }).collect();
    if characters.len() <= width {
        return characters.into_iter().collect();
    }
    let tail = &characters[characters.len() - (width - 1)..];
    std::iter::once('…').chain(tail.iter().copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspection::CameraVote;

    fn availability(word: &str) -> Observation {
        Observation::Availability { station: "a/b/c".into(), word: word.into() }
    }

    #[test]
    fn a_station_that_had_stopped_before_does_not_end_the_watch() {
        let mut stations = Stations::default();
        stations.observe(&availability("stopped"));
        assert!(!stations.all_stopped());
        stations.observe(&availability("online"));
        stations.observe(&availability("stopped"));
        assert!(stations.all_stopped());
    }

    #[test]
    fn a_whole_parts_verdict_says_what_its_cameras_said() {
        let vote = |camera: &str, verdict| CameraVote { camera: camera.into(), verdict, decisions: Vec::new() };
        let cameras = vec![vote("left", Verdict::Accept), vote("right", Verdict::NotInspected)];
        let note = combined_note(&Combined { needed: 2, accepted: 1, cameras });
        assert_eq!(note, "whole part: left accept, right not_inspected");
    }

    #[test]
    fn long_and_hostile_names_fit_the_column() {
        assert_eq!(shorten("abc", 5), "abc");
        assert_eq!(shorten("abcdefgh", 5), "…efgh");
        assert_eq!(shorten("a\x1b[31m", 10), "a?[31m");
        assert_eq!(time_of_day(86_400_000_000 + 3_723_004_000), "01:02:03.004");
    }
}
