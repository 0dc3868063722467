//! Files, models, pictures and clocks that are not what they should be, each with its outcome.

use std::path::Path;
use std::process::Command;

use linegate::inspection::{Decision, NotInspected, Verdict};
use linegate::line::topology::{Line, LineError};

use super::account::received;
use crate::publishing::brokers::{Listener, Mosquitto, PATIENCE, eventually};
use crate::run::{Site, assert_complete, cause, linegate, write_bundle_of};
use crate::support::onnx::{F32, I64, node};

#[test]
fn a_damaged_outbox_is_set_aside_with_an_alarm_and_the_line_decides() {
    let broker = Mosquitto::start();
    let states = Listener::start(broker.port, "linegate/v1/s/l/t/state", &[]);
    let mut site = Site::new("[model]\nbundle = \"bundle\"\nthreads = 1\n");
    site.add(&format!("[mqtt]\nbroker = {{ kind = \"external\", host = \"127.0.0.1\", port = {} }}", broker.port));
    site.folder_camera("cam", 20, &[128; 20], "");
    std::fs::write(site.folder.path().join("outbox.sqlite"), vec![0xa5; 30_000]).unwrap();
    let (decisions, summary) = site.run();
    assert_complete(&decisions, &summary);
    assert_eq!((summary.stats.accept, summary.acknowledged, summary.not_stored), (20, 20, 0));
    let alarm = states.on("/state").iter().any(|state| state.payload.contains("outbox.sqlite.corrupt-"));
    assert!(alarm, "the state says where it is: {:?}", states.received());
}

fn refused(site: &Site) -> String {
    match Line::start(&site.config(), None) {
        Err(error @ LineError::Model(_)) => {
            let mut text = error.to_string();
            let mut cause = std::error::Error::source(&error);
            while let Some(error) = cause {
                text = format!("{text}: {error}");
                cause = error.source();
            }
            text
        }
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("it started"),
    }
}

#[test]
fn a_model_of_the_wrong_shape_keeps_the_line_from_starting() {
    let mut site = Site::with_bundle();
    site.folder_camera("cam", 20, &[128; 3], "");
    // Squares of 8 pixels where the manifest tells of 16.
    let nodes = [
        node("Cast", "image", "real", &[("to", &[F32])]),
        node("Transpose", "real", "planes", &[("perm", &[0, 3, 1, 2])]),
        node("AveragePool", "planes", "pooled", &[("kernel_shape", &[8, 8]), ("strides", &[8, 8])]),
        node("ReduceMean", "pooled", "ll16", &[("axes", &[1]), ("keepdims", &[0])]),
    ];
    write_bundle_of(&site.folder.path().join("bundle"), "1", 128.0, &nodes);
    let text = refused(&site);
    assert!(text.contains("ll16"), "{text}");
}

#[test]
fn a_model_that_gives_no_numbers_accepts_nothing() {
    let mut site = Site::with_bundle();
    site.folder_camera("cam", 50, &[0, 128, 255], "");
    // Square root of a negative number: not a number.
    let nodes = [
        node("Cast", "image", "real", &[("to", &[F32])]),
        node("Transpose", "real", "planes", &[("perm", &[0, 3, 1, 2])]),
        node("AveragePool", "planes", "pooled", &[("kernel_shape", &[16, 16]), ("strides", &[16, 16])]),
        node("ReduceMean", "pooled", "mean", &[("axes", &[1]), ("keepdims", &[0])]),
        node("Exp", "mean", "positive", &[]),
        node("Neg", "positive", "negative", &[]),
        node("Sqrt", "negative", "ll16", &[]),
    ];
    write_bundle_of(&site.folder.path().join("bundle"), "1", 128.0, &nodes);
    match Line::start(&site.config(), None) {
        // Either way is safe: refused at the start, or every frame not inspected.
        Err(error) => assert!(matches!(error, LineError::Model(_)), "{error:?}"),
        Ok(line) => {
            drop(line);
            let (decisions, summary) = site.run();
            assert_complete(&decisions, &summary);
            for decision in &decisions {
                assert_eq!(cause(decision), Some(NotInspected::NotFinite), "{decision:?}");
                assert!(decision.eject);
            }
        }
    }
}

#[test]
fn garbage_between_jpegs_is_told_as_lost_and_sizes_may_change_from_frame_to_frame() {
    let mut site = Site::with_bundle();
    site.folder_camera("cam", 50, &[], "");
    for (index, (width, height)) in [(96, 64), (0, 0), (640, 480), (31, 17), (0, 0), (1920, 1080)].iter().enumerate() {
        let file = site.folder.path().join(format!("cam/{index:04}.jpg"));
        if *width == 0 {
            std::fs::write(&file, [&[0xff, 0xd8, 0xff, 0xe0][..], &[0x5a; 3000]].concat()).unwrap();
        } else {
            image::RgbImage::from_pixel(*width, *height, image::Rgb([128; 3])).save(&file).unwrap();
        }
    }
    let (decisions, summary) = site.run();
    assert_complete(&decisions, &summary);
    assert_eq!(decisions.len(), 6);
    for decision in &decisions {
        let garbage = matches!(decision.part_id.as_deref(), Some("0001.jpg" | "0004.jpg"));
        let expected = if garbage { Verdict::NotInspected } else { Verdict::Accept };
        assert_eq!(decision.verdict, expected, "{decision:?}");
        assert_eq!(cause(decision), garbage.then_some(NotInspected::Lost));
    }
}

/// A model in which a bright picture makes ONNX Runtime fail: its brightness becomes an index.
fn write_poisonable(bundle: &Path) {
    let nodes = [
        node("Cast", "image", "real", &[("to", &[F32])]),
        node("Transpose", "real", "planes", &[("perm", &[0, 3, 1, 2])]),
        node("ReduceMax", "planes", "brightest", &[("axes", &[1, 2, 3]), ("keepdims", &[0])]),
        node("Cast", "brightest", "index", &[("to", &[I64])]),
        // 48 columns: a brightness above 47 is out of bounds.
        node("Gather", "planes index", "column", &[("axis", &[3])]),
        node("ReduceMean", "column", "used", &[("axes", &[1, 2, 3]), ("keepdims", &[1])]),
        node("AveragePool", "planes", "pooled", &[("kernel_shape", &[16, 16]), ("strides", &[16, 16])]),
        node("Add", "pooled used", "sum", &[]),
        node("ReduceMean", "sum", "ll16", &[("axes", &[1]), ("keepdims", &[0])]),
    ];
    write_bundle_of(bundle, "1", 40.0, &nodes);
}

#[test]
fn a_poisoned_frame_is_tried_once_more_alone_and_takes_nobody_with_it() {
    let mut site = Site::with_bundle();
    site.add("[batching]\nmax_batch = 4\nmax_wait_ms = 200");
    write_poisonable(&site.folder.path().join("bundle"));
    site.folder_camera("cam", 50, &[20, 20, 200, 20, 20, 20, 200, 20], "");
    let (decisions, summary) = site.run();
    assert_complete(&decisions, &summary);
    for decision in &decisions {
        let poisoned = matches!(decision.frame, 3 | 7);
        assert_eq!(cause(decision), poisoned.then_some(NotInspected::Failed), "{decision:?}");
        assert_eq!(decision.verdict == Verdict::Accept, !poisoned);
    }
}

#[test]
fn a_session_that_fails_batch_after_batch_is_made_anew_and_the_line_goes_on() {
    let mut site = Site::with_bundle();
    site.add("[batching]\nmax_batch = 1");
    write_poisonable(&site.folder.path().join("bundle"));
    let greys: Vec<u8> = [vec![20; 3], vec![200; 9], vec![20; 5]].concat();
    site.folder_camera("cam", 20, &greys, "");
    let output = linegate(&["run", "--config", site.path().to_str().unwrap(), "--json"]).output().unwrap();
    assert!(output.status.success());
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(log.contains("the session was made anew"), "{log}");
    let summary = String::from_utf8(output.stdout).unwrap();
    let summary: serde_json::Value = serde_json::from_str(summary.lines().last().unwrap()).unwrap();
    assert_eq!((&summary["stats"]["accept"], &summary["stats"]["not_inspected"]), (&8.into(), &9.into()), "{log}");
    assert_eq!(summary["whole"], true);
}

/// A library that sets the wall clock of a program back by an hour after two seconds; time that only
/// goes on stays as it is.
fn clock_that_is_set_back(folder: &Path) -> std::path::PathBuf {
    let source = folder.join("clock.c");
    std::fs::write(
        &source,
        "#define _GNU_SOURCE\n#include <dlfcn.h>\n#include <time.h>\n#include <stddef.h>\n\
         int clock_gettime(clockid_t id, struct timespec *out) {\n\
         static int (*real)(clockid_t, struct timespec *); static time_t begin;\n\
         if (!real) real = dlsym(RTLD_NEXT, \"clock_gettime\");\n\
         int result = real(id, out);\n\
         if (result == 0 && id == CLOCK_REALTIME) {\n\
         struct timespec now; real(CLOCK_MONOTONIC, &now);\n\
         if (!begin) begin = now.tv_sec;\n\
         if (now.tv_sec - begin >= 2) out->tv_sec -= 3600;\n\
         }\n\
         return result;\n}\n",
    )
    .unwrap();
    let library = folder.join("clock.so");
    let status = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .args([&library, &source])
        .arg("-ldl")
        .status()
        .expect("cc, which Rust links with");
    assert!(status.success());
    library
}

#[test]
fn a_wall_clock_that_is_set_back_an_hour_makes_nothing_late_and_loses_nothing() {
    let broker = Mosquitto::start();
    let listener = Listener::start(broker.port, "linegate/v1/+/+/+/+/decision", &[]);
    let mut site = Site::new("[model]\nbundle = \"bundle\"\nthreads = 1\n");
    site.add(&format!("[mqtt]\nbroker = {{ kind = \"external\", host = \"127.0.0.1\", port = {} }}", broker.port));
    site.folder_camera("cam", 25, &[128; 120], "deadline_ms = 30000");
    let library = clock_that_is_set_back(site.folder.path());
    let output = linegate(&["run", "--config", site.path().to_str().unwrap(), "--json"])
        .env("LD_PRELOAD", library)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    eventually("every decision has arrived", PATIENCE, || received(&listener).len() >= 120);
    let mut decisions: Vec<Decision> = received(&listener);
    decisions.sort_by_key(|decision| decision.sequence);
    assert_eq!(decisions.len(), 120);
    assert!(
        decisions.windows(2).any(|pair| pair[1].decided_us < pair[0].decided_us - 3_000_000_000),
        "it was set back"
    );
    for decision in &decisions {
        assert_eq!((decision.verdict, decision.deadline_met), (Verdict::Accept, Some(true)), "{decision:?}");
        let split = decision.latency;
        assert!(split.queue_ms + split.batch_ms + split.infer_ms + split.decide_ms < 30_000.0);
        assert!(!decision.replayed);
    }
}

#[test]
fn a_line_with_a_key_takes_only_the_bundle_that_was_signed_with_it() {
    let mut site = Site::with_bundle();
    site.text = site.text.replace("bundle = \"bundle\"", "bundle = \"bundle\"\npublic_key_file = \"public.key\"");
    site.folder_camera("cam", 50, &[128; 3], "");
    let path = |name: &str| site.folder.path().join(name).display().to_string();
    let models = |arguments: &[&str]| {
        let output = linegate(&["models"]).args(arguments).output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for (private, public) in [("private.key", "public.key"), ("other.key", "other-public.key")] {
        assert!(models(&["keys", "--private", &path(private), "--public", &path(public)]).0);
    }
    assert!(!models(&["keys", "--private", &path("private.key"), "--public", &path("x.key")]).0, "no key is replaced");
    assert!(refused(&site).contains("not signed"));
    assert!(models(&["sign", &path("bundle"), "--key", &path("other.key")]).0);
    assert!(refused(&site).contains("not signed with the key"));
    assert!(models(&["sign", &path("bundle"), "--key", &path("private.key")]).0);
    assert!(models(&["verify", &path("bundle"), "--key", &path("public.key")]).0);
    let (decisions, summary) = site.run();
    assert_complete(&decisions, &summary);
    assert_eq!(summary.stats.accept, 3);
    // A manifest with other boundaries, whole in itself.
    let manifest = site.folder.path().join("bundle/manifest.json");
    let text = std::fs::read_to_string(&manifest).unwrap().replace("\"abnormal\": 2.0", "\"abnormal\": 2000.0");
    std::fs::write(&manifest, text).unwrap();
    assert!(refused(&site).contains("changed"), "moving a boundary needs a new signature");
}
