//! Single decisions -> combined verdicts about parts that several cameras or frames see. Without
//! clock: time comes in as an argument.
//!
//! A decision joins the part of its identity; without one, the oldest part of its table that was
//! first captured within the window and still misses the camera; frames beyond those asked for are
//! passed over. A part is told when its last
//! decision is there or its window ends, whichever is first; what is missing then counts as not
//! inspected, and what comes later finds the part told and changes nothing.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::{PartConfig, PartRule};
use crate::inspection::{CameraVote, Combined, FrameVote, NotInspected, PartSource, Reason, Stamp, Verdict};

/// Parts remembered at most; beyond, the oldest is told and forgotten.
const MAX_PARTS: usize = 1024;
/// How long a told part is remembered after its window, so that a decision that comes late does
/// not make a second part of it.
const MEMORY: Duration = Duration::from_secs(10);
/// Reasons in a combined verdict at most.
const MAX_REASONS: usize = 32;

/// A configured part.
#[derive(Debug)]
struct Rule {
    name: Arc<str>,
    cameras: Vec<Arc<str>>,
    needed: usize,
    window: Duration,
    frames: usize,
    accept_frames: usize,
}

/// One decision about a frame of a part.
#[derive(Debug, Clone)]
pub(super) struct Vote {
    pub(super) camera: Arc<str>,
    pub(super) part_id: Option<Arc<str>>,
    pub(super) identified_by: PartSource,
    pub(super) captured: Stamp,
    pub(super) result_id: String,
    pub(super) verdict: Verdict,
    pub(super) reasons: Vec<Reason>,
}

/// A combined verdict.
#[derive(Debug, Clone)]
pub(super) struct CombinedPart {
    /// The configured name.
    pub(super) name: Arc<str>,
    pub(super) part_id: Option<Arc<str>>,
    pub(super) identified_by: PartSource,
    /// Of the first frame.
    pub(super) captured: Stamp,
    pub(super) window: Duration,
    pub(super) verdict: Verdict,
    pub(super) reasons: Vec<Reason>,
    pub(super) combined: Combined,
}

#[derive(Debug)]
struct Open {
    rule: usize,
    part_id: Option<Arc<str>>,
    identified_by: PartSource,
    first: Stamp,
    /// Per camera of the rule.
    votes: Vec<Vec<FrameVote>>,
    reasons: Vec<Reason>,
    told: bool,
}

/// The parts that are being put together.
#[derive(Debug)]
pub(super) struct Assembly {
    rules: Vec<Rule>,
    open: VecDeque<Open>,
}

/// The verdict of `count` voters of which `needed` must accept. Never good by default: whoever
/// says nothing does not accept.
fn combine(verdicts: impl Iterator<Item = Verdict>, count: usize, needed: usize) -> Verdict {
    let (mut accepts, mut rejects, mut suspects) = (0, 0, 0);
    for verdict in verdicts {
        match verdict {
            Verdict::Accept => accepts += 1,
            Verdict::Reject => rejects += 1,
            Verdict::Suspect => suspects += 1,
            Verdict::NotInspected => {}
        }
    }
    if accepts >= needed {
        Verdict::Accept
    } else if count.saturating_sub(rejects) < needed {
        Verdict::Reject
    } else if count.saturating_sub(rejects + suspects) < needed {
        Verdict::Suspect
    } else {
        Verdict::NotInspected
    }
}

impl Rule {
    fn new(config: &PartConfig) -> Self {
        let needed = match config.rule {
            PartRule::All => config.cameras.len(),
            PartRule::Any => 1,
            PartRule::AtLeast => config.at_least.unwrap_or(config.cameras.len()),
        };
        Self {
            name: config.name.as_str().into(),
            cameras: config.cameras.iter().map(|name| name.as_str().into()).collect(),
            needed,
            window: Duration::from_millis(config.window_ms),
            frames: config.frames,
            accept_frames: config.accept_frames.unwrap_or(config.frames),
        }
    }

    fn tell(&self, open: &Open) -> CombinedPart {
        let vote = |(camera, votes): (&Arc<str>, &Vec<FrameVote>)| CameraVote {
            camera: camera.to_string(),
            verdict: combine(votes.iter().map(|vote| vote.verdict), self.frames, self.accept_frames),
            decisions: votes.clone(),
        };
        let cameras: Vec<_> = self.cameras.iter().zip(&open.votes).map(vote).collect();
        let accepted = cameras.iter().filter(|camera| camera.verdict == Verdict::Accept).count();
        let verdict = combine(cameras.iter().map(|camera| camera.verdict), cameras.len(), self.needed);
        let mut reasons = if verdict == Verdict::Accept { Vec::new() } else { open.reasons.clone() };
        if verdict != Verdict::Accept && !self.is_whole(open) {
            reasons.push(Reason::NotInspected { cause: NotInspected::NoFrame });
        }
        CombinedPart {
            name: self.name.clone(),
            part_id: open.part_id.clone(),
            identified_by: open.identified_by,
            captured: open.first,
            window: self.window,
            verdict,
            reasons,
            combined: Combined { needed: self.needed, accepted, cameras },
        }
    }

    fn is_whole(&self, open: &Open) -> bool {
        open.votes.iter().all(|votes| votes.len() >= self.frames)
    }
}

impl Assembly {
    pub(super) fn new(parts: &[PartConfig]) -> Self {
        Self { rules: parts.iter().map(Rule::new).collect(), open: VecDeque::new() }
    }

    /// Whether any part is configured.
    pub(super) fn is_used(&self) -> bool {
        !self.rules.is_empty()
    }

    /// Takes a decision in. Comes back with the part that it completed.
    pub(super) fn add(&mut self, vote: Vote) -> Option<CombinedPart> {
        let at = |rule: &Rule| rule.cameras.iter().position(|camera| *camera == vote.camera);
        let (index, camera) = self.rules.iter().enumerate().find_map(|(index, rule)| Some((index, at(rule)?)))?;
        let rule = &self.rules[index];
        let apart = |a: Instant, b: Instant| a.saturating_duration_since(b).max(b.saturating_duration_since(a));
        let joins = |open: &Open| {
            open.rule == index
                && open.part_id == vote.part_id
                && (vote.part_id.is_some() || open.votes[camera].len() < rule.frames)
                && apart(open.first.monotonic, vote.captured.monotonic) <= rule.window
        };
        let place = self.open.iter().position(joins).unwrap_or_else(|| {
            self.open.push_back(Open {
                rule: index,
                part_id: vote.part_id.clone(),
                identified_by: vote.identified_by,
                first: vote.captured,
                votes: vec![Vec::new(); rule.cameras.len()],
                reasons: Vec::new(),
                told: false,
            });
            self.open.len() - 1
        });
        let open = &mut self.open[place];
        if open.votes[camera].len() >= rule.frames {
            // More frames of the same part than were asked for.
            return None;
        }
        let told = open.told;
        open.votes[camera].push(FrameVote { result_id: vote.result_id, verdict: vote.verdict });
        let room = MAX_REASONS.saturating_sub(open.reasons.len());
        open.reasons.extend(vote.reasons.into_iter().take(room));
        if told {
            tracing::warn!(part = %rule.name, camera = %vote.camera, "decision came after its part's window");
        }
        if !rule.is_whole(open) {
            return None;
        }
        open.told = true;
        let part = (!told).then(|| rule.tell(open));
        // One with an identity is remembered: it may have more frames.
        if open.part_id.is_none() {
            self.open.remove(place);
        }
        part
    }

    /// When the next window ends.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.open.iter().filter(|open| !open.told).map(|open| open.first.monotonic + self.rules[open.rule].window).min()
    }

    /// Tells the parts whose window has ended.
    pub(super) fn due(&mut self, now: Instant) -> Vec<CombinedPart> {
        let surplus = self.open.len().saturating_sub(MAX_PARTS);
        let mut told = Vec::new();
        for (index, open) in self.open.iter_mut().enumerate() {
            let rule = &self.rules[open.rule];
            if !open.told && (index < surplus || open.first.monotonic + rule.window <= now) {
                open.told = true;
                told.push(rule.tell(open));
            }
        }
        self.open.drain(..surplus);
        let rules = &self.rules;
        self.open.retain(|open| !open.told || open.first.monotonic + rules[open.rule].window + MEMORY > now);
        told
    }

    /// Tells all that is not told; for a line that stops.
    pub(super) fn close(&mut self) -> Vec<CombinedPart> {
        let rules = &self.rules;
        self.open.drain(..).filter(|open| !open.told).map(|open| rules[open.rule].tell(&open)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspection::TimeSource;
    use Verdict::{Accept, NotInspected as Missing, Reject, Suspect};

    fn assembly(rule: &str, cameras: &[&str], frames: usize, accept_frames: usize) -> Assembly {
        let rule = match rule {
            "all" => (PartRule::All, None),
            "any" => (PartRule::Any, None),
            n => (PartRule::AtLeast, n.parse().ok()),
        };
        Assembly::new(&[PartConfig {
            name: "housing".into(),
            cameras: cameras.iter().map(|&name| name.into()).collect(),
            rule: rule.0,
            at_least: rule.1,
            window_ms: 100,
            frames,
            accept_frames: Some(accept_frames),
        }])
    }

    fn vote(camera: &str, part_id: Option<&str>, at: Instant, verdict: Verdict) -> Vote {
        Vote {
            camera: camera.into(),
            part_id: part_id.map(Into::into),
            identified_by: PartSource::Trigger,
            captured: Stamp { monotonic: at, utc_us: 0, source: TimeSource::Arrival },
            result_id: format!("{camera}-{verdict}"),
            verdict,
            reasons: Vec::new(),
        }
    }

    #[test]
    fn a_part_is_good_only_when_enough_cameras_say_so() {
        let cases = [
            ("all", [Accept, Accept, Accept], Accept),
            ("all", [Accept, Reject, Missing], Reject),
            ("all", [Accept, Suspect, Missing], Suspect),
            ("all", [Accept, Accept, Missing], Missing),
            ("any", [Reject, Missing, Accept], Accept),
            ("any", [Reject, Reject, Reject], Reject),
            ("any", [Reject, Reject, Missing], Missing),
            ("2", [Accept, Reject, Accept], Accept),
            ("2", [Accept, Reject, Reject], Reject),
            ("2", [Accept, Reject, Suspect], Suspect),
            ("2", [Accept, Reject, Missing], Missing),
        ];
        let now = Instant::now();
        for (rule, verdicts, expected) in cases {
            let mut parts = assembly(rule, &["a", "b", "c"], 1, 1);
            let mut told = None;
            for (camera, verdict) in ["a", "b", "c"].into_iter().zip(verdicts) {
                assert!(told.is_none(), "told before the last camera");
                told = parts.add(vote(camera, Some("p"), now, verdict));
            }
            let told = told.unwrap();
            assert_eq!(told.verdict, expected, "{rule} of {verdicts:?}");
            assert_eq!(told.combined.cameras.len(), 3);
        }
    }

    #[test]
    fn a_camera_that_says_nothing_within_the_window_counts_as_not_inspected_and_changes_nothing_later() {
        let now = Instant::now();
        let mut parts = assembly("all", &["a", "b"], 1, 1);
        assert!(parts.add(vote("a", Some("p"), now, Accept)).is_none());
        let end = now + Duration::from_millis(100);
        assert_eq!(parts.next_due(), Some(end));
        assert!(parts.due(now + Duration::from_millis(99)).is_empty());
        let told = parts.due(end);
        assert_eq!(told.len(), 1);
        assert_eq!((told[0].verdict, told[0].combined.accepted), (Missing, 1));
        assert_eq!(told[0].reasons, [Reason::NotInspected { cause: NotInspected::NoFrame }]);
        assert!(parts.add(vote("b", Some("p"), now, Accept)).is_none(), "the late one makes no second part");
        assert!(parts.due(end + Duration::from_secs(1)).is_empty() && parts.close().is_empty());
    }

    #[test]
    fn identities_are_never_mixed_and_without_one_time_decides() {
        let now = Instant::now();
        let mut parts = assembly("all", &["a", "b"], 1, 1);
        parts.add(vote("a", Some("p"), now, Accept));
        assert!(parts.add(vote("b", Some("q"), now, Accept)).is_none());
        assert_eq!(parts.add(vote("b", Some("p"), now, Accept)).unwrap().part_id.as_deref(), Some("p"));

        let mut parts = assembly("all", &["a", "b"], 1, 1);
        let later = now + Duration::from_millis(200);
        parts.add(vote("a", None, now, Accept));
        parts.add(vote("a", None, later, Reject));
        assert_eq!(parts.add(vote("b", None, later, Accept)).unwrap().verdict, Reject);
        assert_eq!(parts.add(vote("b", None, now, Accept)).unwrap().verdict, Accept);
    }

    #[test]
    fn enough_good_frames_of_one_camera_make_it_accept() {
        let now = Instant::now();
        for (verdicts, expected) in [
            ([Accept, Reject, Accept], Accept),
            ([Reject, Reject, Accept], Reject),
            ([Accept, Reject, Missing], Missing),
        ] {
            let mut parts = assembly("all", &["a"], 3, 2);
            let told: Vec<_> = verdicts.into_iter().filter_map(|v| parts.add(vote("a", Some("p"), now, v))).collect();
            assert_eq!(told.len(), 1);
            assert_eq!(told[0].verdict, expected, "{verdicts:?}");
            assert_eq!(told[0].combined.cameras[0].decisions.len(), 3);
        }
    }

    #[test]
    fn more_frames_of_a_part_than_asked_for_make_no_second_part_of_it() {
        let now = Instant::now();
        let mut parts = assembly("all", &["a"], 2, 2);
        let told: Vec<_> = (0..5).filter_map(|_| parts.add(vote("a", Some("p"), now, Accept))).collect();
        assert_eq!((told.len(), told[0].combined.cameras[0].decisions.len()), (1, 2));
        let again = now + Duration::from_millis(101);
        assert!(parts.add(vote("a", Some("p"), again, Reject)).is_none(), "after the window it is inspected anew");
        assert_eq!(parts.close().len(), 1);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let now = Instant::now();
        let mut parts = assembly("all", &["a", "b"], 1, 1);
        for n in 0..MAX_PARTS + 10 {
            parts.add(vote("a", Some(&n.to_string()), now, Accept));
        }
        assert_eq!(parts.due(now).len(), 10, "the oldest are told before their time");
        assert_eq!(parts.close().len(), MAX_PARTS);
    }
}
