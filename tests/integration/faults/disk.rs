//! Disks that are full or cannot be written. A small file system in a mount namespace of its own; where
//! the machine gives none (no root, no user namespaces) these tests say so and end.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output};

use super::account::received;
use crate::publishing::brokers::{Listener, Mosquitto, PATIENCE, eventually};
use crate::run::Site;

/// The start of a command with a file system of its own on `folder`; none where that cannot be had.
fn with_mount(folder: &Path, options: &str, script: &str) -> Option<Command> {
    let unshare = |script: &str| {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script]);
        if Command::new("id").arg("-u").output().is_ok_and(|id| id.stdout == b"0\n") {
            command = Command::new("unshare");
            command.args(["--mount", "sh", "-c", script]);
        }
        command
    };
    let mount = format!("mount -t tmpfs -o {options} tmpfs '{}'", folder.display());
    if !unshare(&mount).status().is_ok_and(|status| status.success()) {
        println!("no file system of its own can be mounted here: not tested");
        return None;
    }
    Some(unshare(&format!("{mount} && {script}")))
}

fn run(site: &Site, options: &str) -> Option<Output> {
    let small = site.folder.path().join("small");
    std::fs::create_dir_all(&small).unwrap();
    let config = site.path();
    let script = format!("exec '{}' run --json --config '{}'", env!("CARGO_BIN_EXE_linegate"), config.display());
    let mut command = with_mount(&small, options, &script)?;
    Some(command.current_dir(crate::support::root()).output().unwrap())
}

#[test]
fn a_full_disk_stops_the_archive_and_not_the_line() {
    let broker = Mosquitto::start();
    let listener = Listener::start(broker.port, "linegate/v1/+/+/+/+/decision", &[]);
    let mut site = Site::new("[model]\nbundle = \"bundle\"\nthreads = 1\n");
    site.text = site.text.replace("file = \"outbox.sqlite\"", "file = \"small/outbox.sqlite\"");
    site.add(&format!(
        "[mqtt]\nbroker = {{ kind = \"external\", host = \"127.0.0.1\", port = {} }}\n\
         [archive]\ndirectory = \"small/archive\"\nmin_free_mib = 0",
        broker.port
    ));
    site.folder_camera("cam", 40, &[], "");
    // Dark noise: rejected, so kept, and large.
    for index in 0..80u32 {
        let mut state = index.wrapping_mul(2_654_435_761) | 1;
        let picture = image::RgbImage::from_fn(160, 120, |_, _| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            image::Rgb([state as u8 / 2, (state >> 8) as u8 / 2, (state >> 16) as u8 / 2])
        });
        picture.save(site.folder.path().join(format!("cam/{index:04}.png"))).unwrap();
    }
    let Some(output) = run(&site, "size=700k") else { return };
    let log = String::from_utf8_lossy(&output.stderr);
    let text = String::from_utf8_lossy(&output.stdout);
    let last = text.lines().last().unwrap_or_else(|| panic!("{log}"));
    let summary: serde_json::Value = serde_json::from_str(last).unwrap();
    assert_eq!((&summary["stats"]["frames"], &summary["stats"]["decisions"]), (&80.into(), &80.into()), "{summary}");
    assert_eq!(summary["stats"]["reject"], 80);
    assert_eq!(summary["stats"]["lost"], 0);
    assert!(log.contains("frame could not be archived"), "{log}");
    eventually("every decision has arrived", PATIENCE, || {
        received(&listener).iter().map(|decision| decision.sequence).collect::<BTreeSet<_>>() == (1..=80).collect()
    });
    println!("full disk: 80 of 80 decided and delivered, {} past the outbox", summary["not_stored"]);
}

#[test]
fn an_archive_leaves_the_outbox_its_room_on_the_disk() {
    let mut site = Site::with_bundle();
    site.add("[archive]\ndirectory = \"archive\"\nmin_free_mib = 1000000000");
    site.folder_camera("cam", 50, &[90; 5], "");
    let (decisions, summary) = site.run();
    crate::run::assert_complete(&decisions, &summary);
    assert_eq!((summary.stats.reject, summary.stats.not_archived), (5, 5));
    assert!(decisions.iter().all(|decision| decision.image_ref.is_none()), "nothing is promised that is not there");
}

#[test]
fn memory_that_runs_low_costs_the_archive_first() {
    let mut site = Site::with_bundle();
    site.add("[archive]\ndirectory = \"archive\"\nmin_free_mib = 0\nmin_memory_mib = 1000000");
    site.folder_camera("cam", 50, &[90; 5], "");
    let (decisions, summary) = site.run();
    crate::run::assert_complete(&decisions, &summary);
    assert_eq!((summary.stats.reject, summary.stats.not_archived), (5, 5));
}

#[test]
fn an_outbox_that_cannot_be_written_keeps_the_line_from_starting_and_is_named() {
    let mut site = Site::with_bundle();
    site.text = site.text.replace("file = \"outbox.sqlite\"", "file = \"small/outbox.sqlite\"");
    site.folder_camera("cam", 50, &[128; 5], "");
    let Some(output) = run(&site, "size=700k,ro") else { return };
    assert_eq!(output.status.code(), Some(1));
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(log.contains("small/outbox.sqlite") && log.contains("writable"), "{log}");
}
