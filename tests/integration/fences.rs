//! The fences between the rooms, as the table in `src/lib.rs` draws them.

use std::fs;
use std::path::{Path, PathBuf};

/// Which rooms a room may name. `cli` may name all.
const ROOMS: &[(&str, &[&str])] = &[
    ("inspection", &[]),
    ("config", &["inspection"]),
    ("bundle", &["inspection"]),
    ("scoring", &["inspection", "bundle"]),
    ("decision", &["inspection", "bundle"]),
    ("line", &["inspection", "config", "bundle", "scoring", "decision", "telemetry"]),
    ("training", &["inspection", "config", "bundle", "scoring", "decision", "telemetry"]),
    ("registry", &["inspection", "config", "bundle"]),
    ("telemetry", &[]),
];

/// Where a library may be named; a folder also stands for the file of its name.
const LIBRARIES: &[(&str, &[&str])] = &[
    ("ort", &["scoring"]),
    ("pulp", &["scoring/flow", "scoring/scale", "training/flow"]),
    ("gstreamer", &["line/capture"]),
    ("gstreamer_app", &["line/capture"]),
    ("gstreamer_base", &["line/capture"]),
    ("gstreamer_video", &["line/capture"]),
    ("rumqttc", &["line/publishing"]),
    ("rumqttd", &["line/publishing"]),
    ("rusqlite", &["line/outbox"]),
    ("prost", &["training/export"]),
    ("anyhow", &["cli"]),
];

/// Rooms that know neither clock, files, network nor randomness.
const PURE: &[&str] = &["decision", "inspection"];
const IMPURE: &[&str] = &["std::fs", "std::net", "std::time::SystemTime", "Instant::now", "SystemTime::now", "rand"];

/// Lines before the tests in one file at most.
const MAX_LINES: usize = 400;

/// What a file breaks, in words. `path` is relative to `src`, with `/`.
fn broken_fences(path: &str, text: &str) -> Vec<String> {
    let product = before_tests(text);
    let code = without_comments_and_texts(product);
    let room = path.split('/').next().unwrap_or(path).trim_end_matches(".rs");
    let mut broken = Vec::new();
    if let Some((_, allowed)) = ROOMS.iter().find(|(name, _)| *name == room) {
        for used in rooms_used(&code) {
            if used != room && !allowed.contains(&used.as_str()) && is_room(&used) {
                broken.push(format!("{path}: {room} must not use {used}"));
            }
        }
    } else if !matches!(room, "cli" | "main" | "lib") {
        broken.push(format!("{path}: the room {room} has no fence: add it to the table in src/lib.rs and here"));
    }
    for (library, homes) in LIBRARIES {
        let at_home = homes.iter().any(|home| path == format!("{home}.rs") || path.starts_with(&format!("{home}/")));
        if !at_home && names(&code, library) {
            broken.push(format!("{path}: only {} may use {library}", homes.join(" and ")));
        }
    }
    if PURE.contains(&room) {
        for impure in IMPURE.iter().filter(|impure| names(&code, impure)) {
            broken.push(format!("{path}: {room} is pure and must not use {impure}"));
        }
    }
    let lines = product.lines().count();
    if lines > MAX_LINES {
        broken.push(format!("{path}: {lines} lines before its tests, look for a seam beyond {MAX_LINES}"));
    }
    broken
}

fn is_room(name: &str) -> bool {
    name == "cli" || ROOMS.iter().any(|(room, _)| *room == name)
}

/// Tests may reach anywhere.
fn before_tests(text: &str) -> &str {
    text.find("#[cfg(test)]").map_or(text, |start| &text[..start])
}

/// The rooms named after `crate::` or `linegate::`, lists in braces included.
fn rooms_used(code: &str) -> Vec<String> {
    let code: String = code.split_whitespace().collect::<Vec<_>>().join(" ").replace(":: ", "::").replace(" ::", "::");
    let mut used = Vec::new();
    for prefix in ["crate::", "linegate::"] {
        for (start, _) in code.match_indices(prefix) {
            let before = code[..start].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
                continue;
            }
            let rest = &code[start + prefix.len()..];
            if let Some(list) = rest.strip_prefix('{') {
                used.extend(top_of_list(list));
            } else {
                used.push(word(rest));
            }
        }
    }
    used
}

/// The first word of every entry of a list in braces, given behind its opening brace.
fn top_of_list(list: &str) -> Vec<String> {
    let mut depth = 0;
    let mut found = Vec::new();
    let mut entry_starts = true;
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => entry_starts = true,
            c if entry_starts && !c.is_whitespace() => {
                found.push(word(&list[at..]));
                entry_starts = false;
            }
            _ => {}
        }
    }
    found
}

fn word(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// Whether a path begins with `name`: `name::…`, or `use name`.
fn names(code: &str, name: &str) -> bool {
    code.match_indices(name).any(|(start, _)| {
        let before = &code[..start];
        let after = code[start + name.len()..].trim_start();
        let is_whole = !before.ends_with(|c: char| c.is_alphanumeric() || c == '_')
            && !code[start + name.len()..].starts_with(|c: char| c.is_alphanumeric() || c == '_');
        // `crate::config` is not the crate `config`, but `::ort::` is the crate `ort`.
        let is_first = !before.ends_with("::")
            || before.trim_end_matches("::").ends_with(|c: char| !c.is_alphanumeric() && c != '_');
        let is_path = after.starts_with("::")
            || name.contains("::")
            || ["use", "crate"].iter().any(|keyword| before.trim_end().ends_with(keyword));
        is_whole && (is_first || name.contains("::")) && is_path
    })
}

/// The code with comments and texts blanked out: they may name anything.
fn without_comments_and_texts(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if rest.starts_with("//") {
            rest = rest.find('\n').map_or("", |end| &rest[end..]);
        } else if rest.starts_with("/*") {
            rest = rest.find("*/").map_or("", |end| &rest[end + 2..]);
        } else if rest.starts_with("r#\"") {
            rest = rest[3..].find("\"#").map_or("", |end| &rest[3 + end + 2..]);
        } else if rest.starts_with("'\"'") || rest.starts_with("'\\\"'") {
            rest = rest[1..].split_once('\'').map_or("", |(_, after)| after);
        } else if c == '"' {
            rest = after_text(&rest[1..]);
            code.push_str("\"\"");
        } else {
            code.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
    code
}

fn after_text(text: &str) -> &str {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return &text[at + 1..],
            _ => {}
        }
    }
    ""
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn every_source_file_stays_within_its_fences() {
    let root = crate::support::root().join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    files.sort();
    assert!(files.len() > 40, "only {} files found", files.len());
    let broken: Vec<String> = files
        .iter()
        .flat_map(|file| {
            let name = file.strip_prefix(&root).unwrap().to_string_lossy().replace('\\', "/");
            broken_fences(&name, &fs::read_to_string(file).unwrap())
        })
        .collect();
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

#[test]
fn every_room_of_the_house_has_a_fence() {
    let root = crate::support::root().join("src");
    let table = fs::read_to_string(root.join("lib.rs")).unwrap();
    for (room, _) in ROOMS {
        assert!(table.contains(&format!("pub mod {room};")), "lib.rs has no room {room}");
    }
}

#[test]
fn a_wing_that_reaches_into_the_other_is_found_however_it_is_written() {
    for text in [
        "use crate::training::fit::Schedule;",
        "use crate::{config::Config, training::{fit, flow}};",
        "use crate::{\n    bundle::Bundle,\n    training,\n};",
        "fn f() -> crate :: training::Loss { loop {} }",
        "pub(crate) use crate::training as other;",
    ] {
        assert_eq!(broken_fences("line/mod.rs", text), ["line/mod.rs: line must not use training"], "{text}");
    }
    assert_eq!(broken_fences("config/load.rs", "use crate::scoring::Provider;").len(), 1);
    assert_eq!(broken_fences("registry/gate.rs", "use crate::training::evaluation;").len(), 1);
    assert_eq!(broken_fences("scoring/fit.rs", "let x = crate::cli::main;").len(), 1);
}

#[test]
fn what_a_room_may_use_is_let_through() {
    for (path, text) in [
        ("line/run.rs", "use crate::{config::Config, bundle::{Bundle, training}};"),
        ("line/run.rs", "// crate::training is the other wing\nlet text = \"crate::training\";"),
        ("cli/train.rs", "use crate::{line, training}; use anyhow::Context;"),
        ("scoring/model.rs", "use ort::session::Session;"),
        ("line/outbox.rs", "use rusqlite::Connection;"),
        ("line/batching/mod.rs", "let short = sort::by(important::ort);"),
        ("line/mod.rs", "#[cfg(test)]\nmod tests { use crate::training::fit; }"),
        ("decision/mod.rs", "let brand = 1; fn at(now: std::time::Instant) {}"),
    ] {
        assert!(broken_fences(path, text).is_empty(), "{path}: {text}: {:?}", broken_fences(path, text));
    }
}

#[test]
fn a_fenced_library_outside_its_room_is_found() {
    for (path, text) in [
        ("decision/mod.rs", "use ort::Session;"),
        ("line/batching/mod.rs", "use gstreamer as gst;"),
        ("line/outbox/mod.rs", "fn f(client: &rumqttc::v5::Client) {}"),
        ("training/fit/mod.rs", "use ::prost::Message;"),
        ("scoring/error.rs", "use anyhow;"),
        ("scoring/error.rs", "type R = anyhow::Result<()>;"),
        ("line/publishing/mod.rs", "use {rusqlite::Connection, std::fs};"),
    ] {
        assert_eq!(broken_fences(path, text).len(), 1, "{path}: {text}: {:?}", broken_fences(path, text));
    }
}

#[test]
fn a_pure_room_with_a_clock_is_found() {
    let text = "fn now() -> std::time::Instant { std::time::Instant::now() }";
    assert_eq!(broken_fences("decision/mod.rs", text).len(), 1);
}

#[test]
fn a_room_without_a_fence_and_a_file_that_is_too_long_are_found() {
    assert_eq!(broken_fences("utils/mod.rs", "").len(), 1);
    assert!(broken_fences("line/mod.rs", &"fn f() {}\n".repeat(400)).is_empty());
    assert_eq!(broken_fences("line/mod.rs", &"fn f() {}\n".repeat(401)).len(), 1);
    let tests = format!("#[cfg(test)]\n{}", "fn f() {}\n".repeat(500));
    assert!(broken_fences("line/mod.rs", &tests).is_empty());
}
