//! The live table: a line per decision, a status line every second.

use std::io::{IsTerminal, Write};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use crate::inspection::{Decision, Reason, Verdict};
use crate::line::publishing::Stats;
use crate::line::topology::Line;

/// Time between two status lines.
const STATUS: Duration = Duration::from_secs(1);

/// Shows decisions as they come.
pub(super) struct Table {
    terminal: bool,
    shown: u64,
    next_status: Instant,
    status: String,
    former: (Instant, u64),
}

impl Table {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        let terminal = std::io::stdout().is_terminal();
        Self { terminal, shown: 0, next_status: now + STATUS, status: String::new(), former: (now, 0) }
    }

    /// Shows what comes within `time`, and the status when it is due.
    pub(super) fn follow(&mut self, decisions: &Receiver<Decision>, line: &Line, time: Duration) {
        let until = Instant::now() + time;
        while let Ok(decision) = decisions.recv_timeout(until.saturating_duration_since(Instant::now())) {
            self.show(&decision);
            if Instant::now() >= until {
                break;
            }
        }
        let now = Instant::now();
        if now >= self.next_status {
            self.next_status = now + STATUS;
            let stats = line.stats();
            let seconds = now.duration_since(self.former.0).as_secs_f64();
            let rate = (stats.decisions - self.former.1) as f64 / seconds;
            self.former = (now, stats.decisions);
            let latency = line.latency();
            self.status = status(&stats, rate, latency.p50_ms, latency.p99_ms);
            self.clear();
            self.print_status();
        }
    }

    /// Shows what is left and gives the last line back.
    pub(super) fn finish(&mut self, decisions: &Receiver<Decision>) {
        self.status.clear();
        for decision in decisions.try_iter() {
            self.show(&decision);
        }
    }

    /// Takes the status line off a terminal.
    pub(super) fn clear(&mut self) {
        if self.terminal {
            print!("\r\x1b[2K");
        }
    }

    fn print_status(&self) {
        if self.terminal {
            print!("{}", self.status);
        } else {
            println!("{}", self.status);
        }
        // A closed terminal is noticed by the print above at the latest.
        let _ = std::io::stdout().flush();
    }

    fn show(&mut self, decision: &Decision) {
        self.clear();
        if self.shown.is_multiple_of(40) {
            println!(
                "{:<12}  {:<12} {:>7}  {:<24} {:<13} {:>15}  {:>10}",
                "time (UTC)", "camera", "frame", "part", "verdict", "score/threshold", "latency"
            );
        }
        self.shown += 1;
        println!("{}", row(decision, self.terminal));
        if self.terminal && !self.status.is_empty() {
            self.print_status();
        }
    }
}

fn status(stats: &Stats, rate: f64, p50_ms: f64, p99_ms: f64) -> String {
    format!(
        "-- {} decisions ({rate:.1}/s): {} accept, {} reject, {} suspect, {} not_inspected; \
         latency p50 {p50_ms:.1} ms p99 {p99_ms:.1} ms; outbox {}",
        stats.decisions, stats.accept, stats.reject, stats.suspect, stats.not_inspected, stats.outbox
    )
}

/// One decision; colours only for a terminal.
fn row(decision: &Decision, colour: bool) -> String {
    let time = jiff::Timestamp::from_microsecond(decision.captured_us)
        .map_or_else(|_| "?".into(), |time| time.strftime("%H:%M:%S%.3f").to_string());
    let score = match (decision.image_score, decision.threshold) {
        (Some(score), Some(threshold)) => format!("{score:.2}/{threshold:.2}"),
        _ => "-".into(),
    };
    let split = &decision.latency;
    let latency = split.queue_ms + split.batch_ms + split.infer_ms + split.decide_ms;
    let verdict = format!("{:<13}", decision.verdict);
    let verdict = match decision.verdict {
        _ if !colour => verdict,
        Verdict::Accept => format!("\x1b[32m{verdict}\x1b[0m"),
        Verdict::Reject => format!("\x1b[1;31m{verdict}\x1b[0m"),
        Verdict::Suspect => format!("\x1b[33m{verdict}\x1b[0m"),
        Verdict::NotInspected => format!("\x1b[35m{verdict}\x1b[0m"),
    };
    let cause = decision.reasons.iter().find_map(|reason| match reason {
        Reason::NotInspected { cause } => serde_json::to_value(cause).ok(),
        Reason::ScoreAboveBoundary { .. } => None,
    });
    let cause = cause.as_ref().and_then(serde_json::Value::as_str).unwrap_or_default();
    let part = shorten(decision.part_id.as_deref().unwrap_or("-"), 24);
    let text = format!(
        "{time:<12}  {:<12} {:>7}  {part:<24} {verdict} {score:>15}  {latency:>7.1} ms  {cause}",
        shorten(&decision.camera, 12),
        decision.frame
    );
    text.trim_end().to_owned()
}

/// The end of a long name: that is where names differ. Control characters would garble the table.
fn shorten(name: &str, width: usize) -> String {
    let clean: Vec<char> = name.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    if clean.len() <= width {
        return clean.into_iter().collect();
    }
    std::iter::once('…').chain(clean[clean.len() - (width - 1)..].iter().copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_keep_their_end_and_control_characters_go() {
        assert_eq!(shorten("cell_0001.png", 24), "cell_0001.png");
        assert_eq!(shorten("abcdefghij", 5), "…ghij");
        assert_eq!(shorten("a\x1b[2Kb", 24), "a?[2Kb");
    }

    #[test]
    fn the_status_line_counts_every_verdict() {
        let stats = Stats { decisions: 9, accept: 4, reject: 3, suspect: 1, not_inspected: 1, ..Stats::default() };
        assert_eq!(
            status(&stats, 2.5, 10.0, 20.0),
            "-- 9 decisions (2.5/s): 4 accept, 3 reject, 1 suspect, 1 not_inspected; \
             latency p50 10.0 ms p99 20.0 ms; outbox 0"
        );
    }
}
