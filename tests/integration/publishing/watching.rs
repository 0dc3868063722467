//! `linegate watch` and `linegate schema` as a user runs them.

use std::process::{Command, Output, Stdio};

use linegate::inspection::{Decision, Verdict};
use linegate::line::publishing::{Message, schema};

use super::brokers::PATIENCE;
use super::{decision, embedded, start};

fn linegate() -> Command {
    Command::new(env!("CARGO_BIN_EXE_linegate"))
}

/// Runs `linegate watch` while a line publishes one decision per (part, verdict) and stops.
fn watch(parts: &[(&str, Verdict)], further: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let delivery = start(&embedded(), folder.path());
    assert!(delivery.wait_connected(PATIENCE));
    let mut process = linegate()
        .args(["watch", "--seconds", "60", "--port", &delivery.broker().1.to_string()])
        .args(further)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // Its first line says that it is connected; the retained `online` says that it is subscribed.
    let mut output = std::io::BufReader::new(process.stdout.take().unwrap());
    let mut seen = String::new();
    while !seen.contains("online") {
        assert!(std::io::BufRead::read_line(&mut output, &mut seen).unwrap() > 0, "{seen}");
    }
    for (number, (part, verdict)) in parts.iter().enumerate() {
        let (part_id, sequence) = (Some((*part).to_owned()), number as u64 + 1);
        delivery.submit(Decision { part_id, sequence, verdict: *verdict, ..decision("front") }).unwrap();
    }
    delivery.stop(PATIENCE);
    let mut stdout = seen.into_bytes();
    std::io::Read::read_to_end(&mut output, &mut stdout).unwrap();
    Output { status: process.wait().unwrap(), stdout, stderr: Vec::new() }
}

const PARTS: [(&str, Verdict); 7] = [
    ("g1.png", Verdict::Accept),
    ("g2.png", Verdict::Reject),
    ("g3.png", Verdict::Suspect),
    ("d1.png", Verdict::Reject),
    ("d2.png", Verdict::Accept),
    ("d3.png", Verdict::NotInspected),
    ("stranger.png", Verdict::Accept),
];

fn labels() -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    let text = "part_id,label\ng1.png,good\ng2.png,good\ng3.png,good\nd1.png,defect\nd2.png,defect\nd3.png,defect\n";
    std::fs::write(file.path(), text).unwrap();
    file
}

#[test]
fn watch_shows_every_decision_and_sums_up_against_the_labels_when_the_line_stops() {
    let labels = labels();
    let output = watch(&PARTS, &["--labels", labels.path().to_str().unwrap()]);
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    for (part, verdict) in PARTS {
        let row = text.lines().find(|line| line.contains(part)).unwrap_or_else(|| panic!("no {part} in\n{text}"));
        assert!(row.contains(verdict.as_str()) && row.contains("9.50/4.25") && row.contains("20.0 ms"), "{row}");
    }
    assert!(!text.contains('\x1b'), "no colours into a file");
    assert!(text.contains("7 decisions") && text.contains("p50 20.0 ms p99 20.0 ms"), "{text}");
    let squeezed: Vec<String> = text.lines().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    for expected in [
        "good 3 1 1 1 0",
        "defect 3 1 1 0 1",
        "escapes 1 of 3 defects (33.3 %)",
        "false rejects 1 of 3 good (33.3 %)",
        "suspects 1 of 6 parts (16.7 %)",
        "not inspected 1 of 6 parts (16.7 %)",
        "without label 1",
    ] {
        assert!(squeezed.iter().any(|line| line == expected), "`{expected}` is missing in\n{text}");
    }
}

#[test]
fn watch_writes_json_lines_and_ends_after_the_wished_count() {
    let labels = labels();
    let output = watch(&PARTS, &["--json", "--count", "4", "--labels", labels.path().to_str().unwrap()]);
    assert!(output.status.success());
    let lines: Vec<serde_json::Value> =
        String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let decisions: Vec<_> = lines.iter().filter(|line| line["kind"] == "decision").collect();
    assert_eq!(decisions.len(), 4);
    let validator = jsonschema::validator_for(&schema(Message::Decision)).unwrap();
    assert!(decisions.iter().all(|line| validator.is_valid(&line["decision"])));
    let summary = lines.last().unwrap();
    assert_eq!(summary["kind"], "summary");
    assert_eq!(summary["verdicts"]["reject"], 2);
    assert_eq!(summary["labels"]["false_rejects"], 1);
}

#[test]
fn watch_refuses_labels_that_it_cannot_read() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "part_id,label\na.png,fine\n").unwrap();
    let output = linegate().args(["watch", "--labels"]).arg(file.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("line 2") && text.contains("fine"), "{text}");
}

#[test]
fn the_printed_schema_is_the_one_that_payloads_are_checked_against() {
    let output = linegate().args(["schema", "decision"]).output().unwrap();
    assert!(output.status.success());
    let printed: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(printed, schema(Message::Decision));
}
