//! What hangs instead of failing: a run of the model, a camera that cannot be started or taken down.

use std::path::Path;
use std::process::Command;

use linegate::inspection::{NotInspected, Verdict};
use linegate::line::topology::Line;

use crate::run::{Site, cause, linegate, wait_until, write_bundle_of};
use crate::support::onnx::{F32, node, numbers};

/// A model that does its work as soon as the picture is dark. Before it stand `times` searches for boxes
/// that overlap, none of which do, so that each is compared with every other: 125 boxes for a brightness
/// of 4, eight million for one of 200, with which a search is not done today.
fn write_hanging(bundle: &Path, times: usize) {
    let mut nodes = vec![
        node("Cast", "image", "real", &[("to", &[F32])]),
        node("Transpose", "real", "planes", &[("perm", &[0, 3, 1, 2])]),
        node("ReduceMax", "planes", "bright", &[("axes", &[0, 1, 2, 3]), ("keepdims", &[0])]),
        numbers("single", &[1]),
        node("Cast", "single", "one", &[("to", &[F32])]),
        node("Sub", "one one", "zero", &[]),
        // A black picture has one box, too.
        node("Add", "bright one", "side", &[]),
        node("Mul", "side side", "square", &[]),
        node("Mul", "square side", "boxes", &[]),
        node("Add", "one one", "two", &[]),
        node("Div", "one two", "half", &[]),
        node("Range", "zero boxes one", "corner", &[]),
        numbers("upright", &[1, -1, 1]),
        numbers("flat", &[1, 1, -1]),
        numbers("all", &[1_000_000_000]),
        node("Reshape", "corner upright", "low", &[]),
        node("Reshape", "corner flat", "scores0", &[]),
        node("Add", "low half", "high", &[]),
        node("Concat", "low low high high", "places", &[("axis", &[2])]),
    ];
    for time in 0..times {
        let name = |what: &str, time: usize| format!("{what}{time}");
        let scores = name("scores", time);
        nodes.extend([
            node("NonMaxSuppression", &format!("places {scores} all"), &name("found", time), &[]),
            node("Cast", &name("found", time), &name("number", time), &[("to", &[F32])]),
            node("ReduceMax", &name("number", time), &name("last", time), &[("axes", &[0, 1]), ("keepdims", &[0])]),
            node("Sub", &format!("{0} {0}", name("last", time)), &name("nothing", time), &[]),
            // One after the other.
            node("Add", &format!("{scores} {}", name("nothing", time)), &name("scores", time + 1), &[]),
        ]);
    }
    nodes.extend([
        node("AveragePool", "planes", "pooled", &[("kernel_shape", &[16, 16]), ("strides", &[16, 16])]),
        node("Add", &format!("pooled nothing{}", times - 1), "sum", &[]),
        node("ReduceMean", "sum", "ll16", &[("axes", &[1]), ("keepdims", &[0])]),
    ]);
    write_bundle_of(bundle, "1", 4.0, &nodes);
}

/// Two a second: the line goes on for some seconds after the run was broken off.
const FRAMES: usize = 20;
/// All but the one that hangs.
const SCORED: usize = FRAMES - 1;

/// Runs a line whose third frame has the given brightness, the others 4; its end and its log.
fn run_with(grey: u8, times: usize) -> (serde_json::Value, String) {
    let mut site =
        Site::new("[model]\nbundle = \"bundle\"\nthreads = 1\nsessions = 1\nrun_timeout_ms = 3000\n").embedded();
    write_hanging(&site.folder.path().join("bundle"), times);
    let mut greys = [4; FRAMES];
    greys[2] = grey;
    site.folder_camera("cam", 2, &greys, "");
    let output = linegate(&["run", "--config", site.path().to_str().unwrap(), "--json"]).output().unwrap();
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{:?}: {log}", output.status);
    let end = String::from_utf8(output.stdout).unwrap();
    (serde_json::from_str(end.lines().last().unwrap()).unwrap(), log)
}

#[test]
fn a_run_that_hangs_fails_its_frame_and_another_session_scores_the_next() {
    // Inside one operator: nothing can end it but the end of the process.
    let (summary, log) = run_with(200, 1);
    let stats = &summary["stats"];
    assert_eq!((&stats["accept"], &stats["not_inspected"]), (&SCORED.into(), &1.into()), "{log}");
    assert_eq!((&summary["whole"], &summary["restarts"]), (&true.into(), &1.into()), "{log}");
    assert!(log.contains("a run hangs") && log.contains("the session was made anew"), "{log}");
    assert!(!log.contains("was broken off has ended"), "{log}");
}

#[test]
fn a_run_that_hangs_is_broken_off_between_two_operators() {
    // 400 searches of a tenth of a second or so.
    let (summary, log) = run_with(20, 400);
    assert_eq!((&summary["stats"]["accept"], &summary["stats"]["not_inspected"]), (&SCORED.into(), &1.into()), "{log}");
    assert!(log.contains("a run hangs") && log.contains("was broken off has ended"), "{log}");
}

#[test]
fn a_camera_whose_graph_hangs_is_told_as_lost_left_behind_and_back_when_it_can_be() {
    let mut site = Site::with_bundle();
    let folder = site.folder.path().to_owned();
    let at = |name: &str| folder.join(name);
    // Opening a pipe waits for its other end: here when the graph starts, there while it runs, so that it
    // cannot be taken down.
    let graphs = [
        ("start", "filesrc location=PIPE ! pngdec ! imagefreeze ! identity name=stamp"),
        (
            "run",
            "multifilesrc location=PIPE loop=true caps=image/png,framerate=20/1 ! pngdec ! identity name=stamp sync=true",
        ),
    ];
    for (name, graph) in graphs {
        let pipe = at(&format!("{name}.png"));
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        std::fs::write(at(&format!("{name}.launch")), graph.replace("PIPE", pipe.to_str().unwrap())).unwrap();
    }
    image::RgbImage::from_pixel(96, 64, image::Rgb([128; 3])).save(at("good.png")).unwrap();
    for name in ["start", "run"] {
        site.add(&format!("[[camera]]\nname = \"{name}\"\npipeline = \"{name}.launch\"\nwatchdog_ms = 500"));
    }
    site.folder_camera("well", 20, &[128; 5], "").add("loop = true");
    let (sender, decisions) = std::sync::mpsc::sync_channel(100_000);
    let line = Line::start(&site.config(), Some(sender)).unwrap();
    wait_until(|| line.state().contains("its graph hangs") && line.state().contains("no frame for"));
    let seen = |camera: &str| decisions.try_iter().filter(|decision| decision.camera == camera).count();
    wait_until(|| seen("well") > 20);
    for pipe in ["start.png", "run.png"] {
        std::fs::rename(at("good.png"), at("other.png")).unwrap();
        std::fs::copy(at("other.png"), at("good.png")).unwrap();
        std::fs::rename(at("other.png"), at(pipe)).unwrap();
    }
    for camera in ["start", "run"] {
        wait_until(|| decisions.try_iter().any(|d| d.camera == camera && d.verdict == Verdict::Accept));
    }
    wait_until(|| line.state() == "executing");
    let summary = line.stop();
    assert!(summary.is_whole(), "{summary:?}");
    assert!(decisions.try_iter().all(|d| matches!(cause(&d), None | Some(NotInspected::Stopped | NotInspected::Shed))));
}
