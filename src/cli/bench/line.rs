//! The line from test camera to broker and back, beside the session alone.

use std::fmt::Write;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use serde::Serialize;

use crate::bundle::Bundle;
use crate::config::Config;
use crate::inspection::{Size, Verdict};
use crate::line::publishing::{Observation, Subscriber, SubscriberOptions};
use crate::line::topology::Line;
use crate::scoring::{Model, Provider, SessionOptions};
use crate::training::cost::cpu_seconds;

/// Beyond what the session alone can score, so that a frame always waits.
const OVERLOAD: f64 = 1.3;
/// Time at the beginning of a run that does not count.
const WARM_UP: Duration = Duration::from_secs(2);

/// What is measured.
#[derive(Debug)]
pub(super) struct Wish<'a> {
    pub(super) bundle: &'a Path,
    pub(super) provider: Provider,
    pub(super) cameras: &'a [usize],
    pub(super) frame: Size,
    pub(super) max_batch: u32,
    pub(super) max_wait_ms: u32,
    pub(super) seconds: u64,
}

/// One run of a line.
#[derive(Debug, Serialize)]
struct Run {
    cameras: usize,
    /// Frames a second that came, by what the session alone can score.
    load: f64,
    /// Frames a second that were scored, published and received again.
    frames_per_second: f64,
    /// Processor time of the whole process a scored frame, test cameras included, ms.
    cpu_ms: f64,
    /// Capture to arrival at a subscriber of the broker, so beyond the acknowledgement: half, 99 %.
    latency_ms: Percentiles,
    /// Frames that were shed, late or lost.
    not_inspected: usize,
    /// Fewest and most frames of a camera that were scored, by the mean.
    share: [f64; 2],
    /// Resident memory at the end, MiB.
    memory_mib: f64,
}

#[derive(Debug, Clone, Copy, Serialize)]
struct Percentiles {
    p50: f64,
    p99: f64,
}

/// Every run, and the session alone.
#[derive(Debug, Serialize)]
pub(super) struct LineCost {
    /// Scored frames a second of the overloaded line with the first number of cameras by those of the
    /// session alone.
    throughput_ratio_pipeline_to_session: f64,
    /// The session alone, frames a second; measured before and behind every overloaded run.
    session_frames_per_second: f64,
    /// Processor time of a frame in the session alone, ms.
    session_cpu_ms: f64,
    runs: Vec<Run>,
}

impl LineCost {
    /// Runs lines of so many cameras at half load, at nine tenths and overloaded.
    pub(super) fn measure(wish: &Wish<'_>, say: &dyn Fn(&str)) -> anyhow::Result<Self> {
        let bundle = Bundle::open(wish.bundle)?;
        let seconds = Duration::from_secs(wish.seconds);
        let providers = vec![wish.provider, Provider::Cpu];
        let options = SessionOptions { providers, required: true, ..SessionOptions::default() };
        let mut model = Model::load(&bundle, &options)?;
        say("the session alone");
        let (mut sessions, mut ratios, mut runs, mut cpu) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let (first, _) = session(&mut model, seconds / 4)?;
        for &cameras in wish.cameras {
            for load in [0.5, 0.9] {
                say(&format!("{cameras} cameras at {:.0} % of it", load * 100.0));
                runs.push(run(wish, cameras, load, first, seconds)?);
            }
            say(&format!("{cameras} cameras at {:.0} %, and the session alone", OVERLOAD * 100.0));
            let (before, cpu_before) = session(&mut model, seconds / 2)?;
            let overloaded = run(wish, cameras, OVERLOAD, first, seconds)?;
            let (after, cpu_after) = session(&mut model, seconds / 2)?;
            sessions.extend([before, after]);
            cpu.extend([cpu_before, cpu_after]);
            ratios.push(overloaded.frames_per_second / f64::midpoint(before, after));
            runs.push(overloaded);
        }
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len().max(1) as f64;
        Ok(Self {
            throughput_ratio_pipeline_to_session: *ratios.first().context("there is no number of cameras")?,
            session_frames_per_second: mean(&sessions),
            session_cpu_ms: mean(&cpu),
            runs,
        })
    }

    /// For people.
    pub(super) fn print(&self) {
        println!("pipeline / session  {:6.3}   (one overloaded run)", self.throughput_ratio_pipeline_to_session);
        println!(
            "session alone       {:6.1} frames/s, {:.1} ms CPU a frame",
            self.session_frames_per_second, self.session_cpu_ms
        );
        println!("cameras  load   frames/s  CPU ms  latency p50    p99 ms  not inspected  share of the mean  MiB");
        for run in &self.runs {
            println!(
                "{:7}  {:3.0} %  {:8.1}  {:6.1}  {:11.1}  {:8.1}  {:13}  {:7.2} to {:.2}  {:5.0}",
                run.cameras,
                run.load * 100.0,
                run.frames_per_second,
                run.cpu_ms,
                run.latency_ms.p50,
                run.latency_ms.p99,
                run.not_inspected,
                run.share[0],
                run.share[1],
                run.memory_mib
            );
        }
    }
}

/// Frames a second of the session alone on one picture after the other, and processor ms of each.
fn session(model: &mut Model, duration: Duration) -> anyhow::Result<(f64, f64)> {
    let (began, cpu, mut frames) = (Instant::now(), cpu_seconds(), 0.0);
    while began.elapsed() < duration {
        model.time_run(NonZeroUsize::MIN)?;
        frames += 1.0;
    }
    Ok((frames / began.elapsed().as_secs_f64(), (cpu_seconds() - cpu) * 1e3 / frames))
}

fn run(wish: &Wish<'_>, cameras: usize, load: f64, session: f64, duration: Duration) -> anyhow::Result<Run> {
    let folder = tempfile::tempdir()?;
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    // Cameras give whole numbers of frames a second.
    let rate = (session * load / cameras as f64).round().max(1.0);
    let config = configuration(folder.path(), wish, cameras, rate, port)?;
    let line = Line::start(&Config::load(&config)?, None)?;
    let subscriber = Subscriber::start(&SubscriberOptions {
        host: "127.0.0.1".into(),
        port,
        site: None,
        line: None,
        station: None,
        username: None,
        password_file: None,
    })?;
    let began = Instant::now();
    let mut counted: Option<(Instant, f64)> = None;
    let mut latencies = Vec::new();
    let mut scored = vec![0usize; cameras];
    let mut not_inspected = 0;
    while began.elapsed() < WARM_UP + duration {
        let observation = subscriber.next(Duration::from_millis(20));
        if counted.is_none() && began.elapsed() >= WARM_UP {
            counted = Some((Instant::now(), cpu_seconds()));
        }
        let Some(Observation::Decision(decision)) = observation.filter(|_| counted.is_some()) else { continue };
        if decision.verdict == Verdict::NotInspected {
            not_inspected += 1;
            continue;
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros() as i64;
        latencies.push((now - decision.captured_us) as f64 / 1e3);
        let camera = decision.camera.strip_prefix("camera").and_then(|number| number.parse::<usize>().ok());
        if let Some(count) = camera.and_then(|camera| scored.get_mut(camera)) {
            *count += 1;
        }
    }
    let (since, cpu) = counted.context("the measured time is over before it began")?;
    let (seconds, cpu) = (since.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    let memory_mib = resident_mib();
    drop(subscriber);
    let summary = line.stop();
    ensure!(summary.is_whole(), "the line lost something: {}", serde_json::to_string(&summary)?);
    ensure!(!latencies.is_empty(), "no frame was scored in {seconds:.0} s");
    latencies.sort_by(f64::total_cmp);
    let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share).round() as usize];
    let mean = latencies.len() as f64 / cameras as f64;
    let share = |count: Option<&usize>| count.map_or(0.0, |&count| count as f64 / mean);
    Ok(Run {
        cameras,
        load: rate * cameras as f64 / session,
        frames_per_second: latencies.len() as f64 / seconds,
        cpu_ms: cpu * 1e3 / latencies.len() as f64,
        latency_ms: Percentiles { p50: at(0.5), p99: at(0.99) },
        not_inspected,
        share: [share(scored.iter().min()), share(scored.iter().max())],
        memory_mib,
    })
}

/// Writes the configuration of a line of test cameras and gives its path.
fn configuration(folder: &Path, wish: &Wish<'_>, cameras: usize, rate: f64, port: u16) -> anyhow::Result<PathBuf> {
    let bundle = std::path::absolute(wish.bundle)?;
    let quoted = |path: &Path| toml::Value::String(path.to_string_lossy().into_owned()).to_string();
    let mut text = format!(
        "[station]\nsite = \"bench\"\nline = \"bench\"\nstation = \"bench\"\n[model]\nbundle = {}\nproviders = [\"{}\"]\nrequired = true\n\
         [batching]\nmax_batch = {}\nmax_wait_ms = {}\n\
         [outbox]\nfile = {}\n[mqtt.broker]\nkind = \"embedded\"\nlisten = \"127.0.0.1:{port}\"\n",
        quoted(&bundle),
        wish.provider,
        wish.max_batch,
        wish.max_wait_ms,
        quoted(&folder.join("outbox.sqlite")),
    );
    let Size { width, height } = wish.frame;
    for camera in 0..cameras {
        // A picture of one colour: to paint another would cost more than to inspect it.
        write!(
            text,
            "[[camera]]\nname = \"camera{camera}\"\npipeline = \"test\"\n[camera.parameters]\n\
             pattern = \"black\"\nwidth = {width}\nheight = {height}\nrate = {rate}\n"
        )?;
    }
    let file = folder.join("line.toml");
    std::fs::write(&file, text)?;
    Ok(file)
}

/// Resident memory, MiB; 0 where `/proc` cannot be read.
fn resident_mib() -> f64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: f64 = text.split_whitespace().nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0.0);
    pages * rustix::param::page_size() as f64 / f64::from(1 << 20)
}
