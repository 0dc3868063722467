//! Names of topics.

use crate::config::Station;

/// First levels of every topic; the number changes when a topic or payload changes its meaning.
const ROOT: &str = "linegate/v1";

/// The topics of one station.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topics {
    base: String,
}

impl Topics {
    /// The topics of `station`, whose names hold no `/`, `+` or `#` (checked by the configuration).
    pub fn new(station: &Station) -> Self {
        Self { base: format!("{ROOT}/{}/{}/{}", station.site, station.line, station.station) }
    }

    /// What all topics of the station begin with, without a slash at the end.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Decisions of a camera; QoS 1, not retained.
    pub fn decision(&self, camera: &str) -> String {
        format!("{}/{camera}/decision", self.base)
    }

    /// Combined verdicts about a part; QoS 1, not retained.
    pub fn part(&self, part: &str) -> String {
        format!("{}/{part}/part", self.base)
    }

    /// The last decision of a camera; retained.
    pub fn last(&self, camera: &str) -> String {
        format!("{}/{camera}/last", self.base)
    }

    /// State of the station; retained.
    pub fn state(&self) -> String {
        format!("{}/state", self.base)
    }

    /// `online`, `stopped` or `offline`; retained.
    pub fn availability(&self) -> String {
        format!("{}/availability", self.base)
    }

    /// Which model decides; retained.
    pub fn model(&self) -> String {
        format!("{}/model", self.base)
    }

    /// Counters.
    pub fn stats(&self) -> String {
        format!("{}/stats", self.base)
    }

    /// Filter for every command.
    pub fn commands(&self) -> String {
        format!("{}/cmd/+", self.base)
    }

    /// Name of the command that a topic stands for.
    pub fn command<'topic>(&self, topic: &'topic str) -> Option<&'topic str> {
        let name = topic.strip_prefix(&self.base)?.strip_prefix("/cmd/")?;
        (!name.is_empty() && !name.contains('/')).then_some(name)
    }

    /// Whether a reply may go to `topic`: a topic without wildcards that cannot be mistaken for
    /// something the station says by itself, nor be a command to it.
    pub fn may_reply_to(&self, topic: &str) -> bool {
        let inside = |rest: &str| rest.is_empty() || rest.starts_with('/');
        let ours = topic.strip_prefix(&self.base).is_some_and(|rest| inside(rest) && !rest.starts_with("/reply/"));
        !topic.is_empty() && !topic.starts_with('$') && !topic.contains(['+', '#', '\0']) && !ours
    }
}

/// What an incoming topic is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Subject {
    Decision,
    Part,
    State,
    Availability,
    Model,
    Stats,
}

/// Splits a topic into `site/line/station` and its subject.
pub(super) fn parse(topic: &str) -> Option<(String, Subject)> {
    let levels: Vec<&str> = topic.strip_prefix(ROOT)?.strip_prefix('/')?.split('/').collect();
    let subject = match levels.as_slice() {
        [_, _, _, _, "decision"] => Subject::Decision,
        [_, _, _, _, "part"] => Subject::Part,
        [_, _, _, "state"] => Subject::State,
        [_, _, _, "availability"] => Subject::Availability,
        [_, _, _, "model"] => Subject::Model,
        [_, _, _, "stats"] => Subject::Stats,
        _ => return None,
    };
    Some((levels[..3].join("/"), subject))
}

/// Filters for everything that stations say, given or any `site`, `line` and `station`.
pub(super) fn filters(site: Option<&str>, line: Option<&str>, station: Option<&str>) -> Vec<String> {
    let any = "+";
    let base = format!("{ROOT}/{}/{}/{}", site.unwrap_or(any), line.unwrap_or(any), station.unwrap_or(any));
    ["availability", "state", "model", "stats", "+/decision", "+/part"].map(|end| format!("{base}/{end}")).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topics() -> Topics {
        Topics::new(&Station { site: "s".into(), line: "l".into(), station: "t".into() })
    }

    #[test]
    fn a_command_is_told_from_other_topics() {
        assert_eq!(topics().command("linegate/v1/s/l/t/cmd/ping"), Some("ping"));
        assert_eq!(topics().command("linegate/v1/s/l/t/cmd/a/b"), None);
        assert_eq!(topics().command("linegate/v1/s/l/t2/cmd/ping"), None);
    }

    #[test]
    fn replies_never_go_where_the_station_itself_speaks() {
        for forbidden in [
            "",
            "a/+",
            "a/#",
            "$SYS/x",
            "linegate/v1/s/l/t/front/decision",
            "linegate/v1/s/l/t/cmd/ping",
            "linegate/v1/s/l/t",
        ] {
            assert!(!topics().may_reply_to(forbidden), "{forbidden}");
        }
        for allowed in ["answers/1", "linegate/v1/s/l/t/reply/1", "linegate/v1/s/l/t2/x"] {
            assert!(topics().may_reply_to(allowed), "{allowed}");
        }
    }

    #[test]
    fn topics_read_back_what_they_were_made_of() {
        assert_eq!(parse(&topics().decision("front")), Some(("s/l/t".into(), Subject::Decision)));
        assert_eq!(parse(&topics().part("bottle")), Some(("s/l/t".into(), Subject::Part)));
        assert_eq!(parse(&topics().state()), Some(("s/l/t".into(), Subject::State)));
        assert_eq!(parse(&topics().last("front")), None);
        assert_eq!(parse("other/v1/s/l/t/state"), None);
    }
}
