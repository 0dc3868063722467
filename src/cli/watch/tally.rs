//! Counts, rates and latencies of what was watched.

use std::collections::{HashSet, VecDeque};
use std::time::{Duration, Instant};

use super::labels::Label;
use crate::inspection::{Decision, Verdict};

/// Identities of recent decisions, by which duplicates are told.
const RECENT: usize = 65_536;
/// Latencies kept for the percentiles: the latest.
const LATENCIES: usize = 16_384;
/// The rate shown is that of so long.
const RATE_SPAN: Duration = Duration::from_secs(5);

/// From capture to decision, milliseconds.
pub(super) fn latency_ms(decision: &Decision) -> f64 {
    (decision.decided_us - decision.captured_us) as f64 / 1000.0
}

/// Everything that was counted.
#[derive(Debug)]
pub(super) struct Tally {
    since: Instant,
    /// By verdict in the order of [`at`].
    verdicts: [u64; 4],
    /// By label (good, defect) and verdict.
    labelled: [[u64; 4]; 2],
    unlabelled: u64,
    duplicates: u64,
    replayed: u64,
    known: HashSet<String>,
    order: VecDeque<String>,
    latencies: VecDeque<f64>,
    arrivals: VecDeque<Instant>,
}

fn at(verdict: Verdict) -> usize {
    match verdict {
        Verdict::Accept => 0,
        Verdict::Reject => 1,
        Verdict::Suspect => 2,
        Verdict::NotInspected => 3,
    }
}

impl Tally {
    pub(super) fn new(since: Instant) -> Self {
        Self {
            since,
            verdicts: [0; 4],
            labelled: [[0; 4]; 2],
            unlabelled: 0,
            duplicates: 0,
            replayed: 0,
            known: HashSet::new(),
            order: VecDeque::new(),
            latencies: VecDeque::new(),
            arrivals: VecDeque::new(),
        }
    }

    /// Counts a decision; `false` for one that was counted before.
    pub(super) fn count(&mut self, decision: &Decision, label: Option<Label>, now: Instant) -> bool {
        if !self.known.insert(decision.result_id.clone()) {
            self.duplicates += 1;
            return false;
        }
        self.order.push_back(decision.result_id.clone());
        if self.order.len() > RECENT
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        let verdict = at(decision.verdict);
        self.verdicts[verdict] += 1;
        match label {
            Some(Label::Good) => self.labelled[0][verdict] += 1,
            Some(Label::Defect) => self.labelled[1][verdict] += 1,
            None => self.unlabelled += 1,
        }
        self.replayed += u64::from(decision.replayed);
        self.latencies.push_back(latency_ms(decision));
        if self.latencies.len() > LATENCIES {
            self.latencies.pop_front();
        }
        self.arrivals.push_back(now);
        while self.arrivals.front().is_some_and(|&first| now.duration_since(first) > RATE_SPAN) {
            self.arrivals.pop_front();
        }
        true
    }

    /// Decisions counted.
    pub(super) fn decisions(&self) -> u64 {
        self.verdicts.iter().sum()
    }

    fn rate(&self, now: Instant) -> f64 {
        let recent = self.arrivals.iter().filter(|&&arrival| now.duration_since(arrival) <= RATE_SPAN).count();
        let span = now.duration_since(self.since).min(RATE_SPAN).as_secs_f64();
        if span > 0.0 { recent as f64 / span } else { 0.0 }
    }

    /// Nearest-rank percentile of the latency, milliseconds; none before the first decision.
    fn latency(&self, share: f64) -> Option<f64> {
        let mut sorted: Vec<f64> = self.latencies.iter().copied().collect();
        sorted.sort_by(f64::total_cmp);
        let rank = (share * sorted.len() as f64).ceil() as usize;
        sorted.get(rank.saturating_sub(1)).copied()
    }

    /// The status line.
    pub(super) fn status(&self, now: Instant) -> String {
        let [accept, reject, suspect, not_inspected] = self.verdicts;
        let mut line = format!(
            "{} decisions  {:.1}/s  accept {accept}  reject {reject}  suspect {suspect}  not inspected {not_inspected}",
            self.decisions(),
            self.rate(now)
        );
        if let (Some(p50), Some(p99)) = (self.latency(0.50), self.latency(0.99)) {
            line += &format!("  latency p50 {p50:.1} ms p99 {p99:.1} ms");
        }
        if self.replayed > 0 {
            line += &format!("  replayed {}", self.replayed);
        }
        if self.duplicates > 0 {
            line += &format!("  duplicates {}", self.duplicates);
        }
        line
    }

    /// The comparison with the labels, for people. An escape is a defect that was accepted, a
    /// false reject a good part that was rejected; suspects and parts not inspected stand apart.
    pub(super) fn against_labels(&self) -> Vec<String> {
        let share = |part: u64, whole: u64| {
            if whole == 0 { "-".into() } else { format!("{:.1} %", 100.0 * part as f64 / whole as f64) }
        };
        let mut lines = vec![
            String::new(),
            format!(
                "{:<8} {:>8} {:>8} {:>8} {:>8} {:>14}",
                "label", "parts", "accept", "reject", "suspect", "not inspected"
            ),
        ];
        for (name, counts) in [("good", self.labelled[0]), ("defect", self.labelled[1])] {
            let [accept, reject, suspect, not_inspected] = counts;
            let parts: u64 = counts.iter().sum();
            lines.push(format!("{name:<8} {parts:>8} {accept:>8} {reject:>8} {suspect:>8} {not_inspected:>14}"));
        }
        let [good, defect] = self.labelled.map(|counts| counts.iter().sum::<u64>());
        let suspects = self.labelled[0][2] + self.labelled[1][2];
        let missed = self.labelled[0][3] + self.labelled[1][3];
        lines.push(String::new());
        lines.push(format!(
            "escapes        {:>6} of {defect} defects ({})",
            self.labelled[1][0],
            share(self.labelled[1][0], defect)
        ));
        lines.push(format!(
            "false rejects  {:>6} of {good} good ({})",
            self.labelled[0][1],
            share(self.labelled[0][1], good)
        ));
        lines.push(format!(
            "suspects       {suspects:>6} of {} parts ({})",
            good + defect,
            share(suspects, good + defect)
        ));
        lines.push(format!("not inspected  {missed:>6} of {} parts ({})", good + defect, share(missed, good + defect)));
        if self.unlabelled > 0 {
            lines.push(format!("without label  {:>6}", self.unlabelled));
        }
        lines
    }

    /// The same for machines.
    pub(super) fn summary(&self, now: Instant, labelled: bool) -> serde_json::Value {
        let counts = |[accept, reject, suspect, not_inspected]: [u64; 4]| {
            serde_json::json!({
                "accept": accept, "reject": reject, "suspect": suspect, "not_inspected": not_inspected
            })
        };
        let mut summary = serde_json::json!({
            "kind": "summary",
            "decisions": self.decisions(),
            "verdicts": counts(self.verdicts),
            "seconds": now.duration_since(self.since).as_secs_f64(),
            "latency_p50_ms": self.latency(0.50),
            "latency_p99_ms": self.latency(0.99),
            "replayed": self.replayed,
            "duplicates": self.duplicates,
        });
        if labelled {
            summary["labels"] = serde_json::json!({
                "good": counts(self.labelled[0]),
                "defect": counts(self.labelled[1]),
                "unlabelled": self.unlabelled,
                "escapes": self.labelled[1][0],
                "false_rejects": self.labelled[0][1],
            });
        }
        summary
    }
}
