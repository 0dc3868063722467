//! The line from test camera to broker and back, beside the sessions alone.

use std::fmt::Write;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use serde::Serialize;

use super::super::tune::score_for;
use crate::bundle::Bundle;
use crate::config::Config;
use crate::inspection::{Latency, Size, Verdict};
use crate::line::publishing::{Observation, Subscriber, SubscriberOptions};
use crate::line::topology::Line;
use crate::scoring::{Model, Provider, SessionOptions};
use crate::training::cost::cpu_seconds;

/// What is offered by what the sessions alone can score: more, so that a frame always waits, but not
/// much more, for each that is shed is a decision as well.
const OVERLOAD: f64 = 1.1;
/// Time at the beginning of a run that does not count.
const WARM_UP: Duration = Duration::from_secs(2);
/// How much longer the first scored frame may take on a machine that has much else to do.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is measured.
#[derive(Debug)]
pub(super) struct Wish<'a> {
    pub(super) bundle: &'a Path,
    pub(super) provider: Provider,
    pub(super) cameras: &'a [usize],
    pub(super) frame: Size,
    pub(super) sessions: u32,
    pub(super) pinned: bool,
    pub(super) max_batch: u32,
    pub(super) max_wait_ms: u32,
    pub(super) seconds: u64,
}

/// One run of a line.
#[derive(Debug, Serialize)]
struct Run {
    cameras: usize,
    /// Frames a second that came.
    offered: f64,
    /// Frames a second that came, by those that the overloaded line scores.
    load: f64,
    /// The same by those of the line's sessions alone.
    load_of_sessions: f64,
    /// Frames a second that were scored, published and received again.
    frames_per_second: f64,
    /// Processor time of the whole process a scored frame, test cameras included, ms.
    cpu_ms: f64,
    /// Capture to arrival at a subscriber of the broker, so beyond the acknowledgement: half, 99 %.
    latency_ms: Percentiles,
    /// Where it goes, means.
    split_ms: Split,
    /// The same of the slowest hundredth.
    slowest_split_ms: Split,
    /// Frames that were shed, late or lost.
    not_inspected: usize,
    /// Copies of a frame at full size, mean.
    copies_a_frame: f64,
    /// Fewest and most frames of a camera that were scored, by the mean.
    share: [f64; 2],
    /// Resident memory at the end, MiB.
    memory_mib: f64,
}

/// Parts of the latency, ms.
#[derive(Debug, Clone, Copy, Default, Serialize)]
struct Split {
    queue: f64,
    batch: f64,
    /// Scaling, the model's run and, where a batch had several frames, the decisions before.
    infer: f64,
    /// Decision, and waiting for the camera's frames before.
    decide: f64,
    /// From the decision through outbox and broker to the subscriber.
    deliver: f64,
}

/// Sessions with nothing around them.
#[derive(Debug, Clone, Copy, Default, Serialize)]
struct Alone {
    sessions: usize,
    frames_per_second: f64,
    /// Processor time of a frame, ms.
    cpu_ms: f64,
    /// Time of one run, ms.
    run_ms: f64,
    /// What 99 of 100 runs take at most, ms.
    run_p99_ms: f64,
}

#[derive(Debug, Clone, Copy, Serialize)]
struct Percentiles {
    p50: f64,
    p99: f64,
}

/// Every run, and the session alone.
#[derive(Debug, Serialize)]
pub(super) struct LineCost {
    /// Scored frames a second of the overloaded line with the first number of cameras by those of one
    /// session alone that has every core.
    throughput_ratio_pipeline_to_session: f64,
    /// The same by those of the line's own sessions alone beside each other, which leave nothing of the
    /// processor to anything else.
    throughput_ratio_pipeline_to_sessions: f64,
    /// One session alone; measured before and behind every overloaded run.
    session: Alone,
    /// The line's own sessions, the same.
    sessions: Alone,
    runs: Vec<Run>,
}

impl LineCost {
    /// Runs lines of so many cameras overloaded, then at half and nine tenths of what they scored.
    pub(super) fn measure(wish: &Wish<'_>, say: &dyn Fn(&str)) -> anyhow::Result<Self> {
        let bundle = Bundle::open(wish.bundle)?;
        let seconds = Duration::from_secs(wish.seconds);
        let options = |sessions| SessionOptions {
            providers: vec![wish.provider, Provider::Cpu],
            required: true,
            sessions,
            ..SessionOptions::default()
        };
        let shared = options(wish.sessions as usize);
        let mut single = [Model::load(&bundle, &options(1))?];
        let mut several = (0..shared.sessions_on(wish.provider))
            .map(|number| Model::load(&bundle, &SessionOptions { pinned: wish.pinned, number, ..shared.clone() }))
            .collect::<Result<Vec<_>, _>>()?;
        let (mut one, mut own, mut runs, mut overloaded) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for &cameras in wish.cameras {
            say(&format!("{cameras} cameras, overloaded, and the sessions alone"));
            let mut sessions_alone = || {
                one.push(alone(&mut single, seconds / 4)?);
                let several = alone(&mut several, seconds / 4)?;
                own.push(several);
                anyhow::Ok(several.frames_per_second)
            };
            let sessions = sessions_alone()?;
            let mut full = run(wish, cameras, OVERLOAD * sessions, seconds)?;
            sessions_alone()?;
            let line = full.frames_per_second;
            overloaded.push(line);
            full.set_load(line, sessions);
            runs.push(full);
            for load in [0.5, 0.9] {
                say(&format!("{cameras} cameras at {:.0} % of what they scored", load * 100.0));
                let mut part = run(wish, cameras, load * line, seconds)?;
                part.set_load(line, sessions);
                runs.push(part);
            }
        }
        let line = *overloaded.first().context("there is no number of cameras")?;
        let around_first = |all: &[Alone]| Alone::mean(&all[..2]).frames_per_second;
        Ok(Self {
            throughput_ratio_pipeline_to_session: line / around_first(&one),
            throughput_ratio_pipeline_to_sessions: line / around_first(&own),
            session: Alone::mean(&one),
            sessions: Alone::mean(&own),
            runs,
        })
    }

    /// For people.
    pub(super) fn print(&self) {
        println!("pipeline / session   {:6.3}   (one overloaded run)", self.throughput_ratio_pipeline_to_session);
        println!("pipeline / sessions  {:6.3}", self.throughput_ratio_pipeline_to_sessions);
        for Alone { sessions, frames_per_second, cpu_ms, run_ms, run_p99_ms } in [self.session, self.sessions] {
            println!(
                "{sessions:2} session(s) alone  {frames_per_second:6.1} frames/s, {cpu_ms:.1} ms CPU a frame, {run_ms:.1} ms a run, p99 {run_p99_ms:.1}"
            );
        }
        println!(
            "cameras  load  of sessions  frames/s  CPU ms  latency p50    p99 ms  queue  batch  infer  decide  deliver  \
             not inspected  copies  share of the mean  MiB"
        );
        for run in &self.runs {
            println!(
                "{:7}  {:3.0} %  {:9.0} %  {:8.1}  {:6.1}  {:11.1}  {:8.1}  {:5.1}  {:5.1}  {:5.1}  {:6.1}  {:7.1}  {:13}  {:6.2}  \
                 {:8.2} to {:.2}  {:5.0}",
                run.cameras,
                run.load * 100.0,
                run.load_of_sessions * 100.0,
                run.frames_per_second,
                run.cpu_ms,
                run.latency_ms.p50,
                run.latency_ms.p99,
                run.split_ms.queue,
                run.split_ms.batch,
                run.split_ms.infer,
                run.split_ms.decide,
                run.split_ms.deliver,
                run.not_inspected,
                run.copies_a_frame,
                run.share[0],
                run.share[1],
                run.memory_mib
            );
            let Split { queue, batch, infer, decide, deliver } = run.slowest_split_ms;
            println!(
                "{:>68}  {queue:5.1}  {batch:5.1}  {infer:5.1}  {decide:6.1}  {deliver:7.1}",
                "its slowest hundredth"
            );
        }
    }
}

impl Run {
    /// `line` and `sessions` are what those score a second.
    fn set_load(&mut self, line: f64, sessions: f64) {
        (self.load, self.load_of_sessions) = (self.offered / line, self.offered / sessions);
    }
}

impl Alone {
    fn mean(all: &[Self]) -> Self {
        let mean = |of: fn(&Self) -> f64| all.iter().map(of).sum::<f64>() / all.len().max(1) as f64;
        Self {
            sessions: all.first().map_or(0, |one| one.sessions),
            frames_per_second: mean(|one| one.frames_per_second),
            cpu_ms: mean(|one| one.cpu_ms),
            run_ms: mean(|one| one.run_ms),
            run_p99_ms: mean(|one| one.run_p99_ms),
        }
    }
}

impl Split {
    fn of(latency: Latency, deliver: f64) -> Self {
        let Latency { queue_ms: queue, batch_ms: batch, infer_ms: infer, decide_ms: decide, .. } = latency;
        Self { queue, batch, infer, decide, deliver }
    }

    fn mean<'a>(all: impl ExactSizeIterator<Item = &'a Self>) -> Self {
        let count = all.len().max(1) as f64;
        let sum = all.fold(Self::default(), |sum, one| Self {
            queue: sum.queue + one.queue,
            batch: sum.batch + one.batch,
            infer: sum.infer + one.infer,
            decide: sum.decide + one.decide,
            deliver: sum.deliver + one.deliver,
        });
        let Self { queue, batch, infer, decide, deliver } = sum;
        Self {
            queue: queue / count,
            batch: batch / count,
            infer: infer / count,
            decide: decide / count,
            deliver: deliver / count,
        }
    }
}

/// The sessions beside each other on one picture after the other.
fn alone(models: &mut [Model], time: Duration) -> anyhow::Result<Alone> {
    let sessions = models.len();
    let spent = score_for(time, models, NonZeroUsize::MIN)?;
    Ok(Alone {
        sessions,
        frames_per_second: spent.runs / spent.wall,
        cpu_ms: spent.cpu * 1e3 / spent.runs,
        run_ms: spent.wall * 1e3 * sessions as f64 / spent.runs,
        run_p99_ms: spent.slow * 1e3,
    })
}

/// Runs a line of so many cameras that bring so many frames a second together.
fn run(wish: &Wish<'_>, cameras: usize, frames_per_second: f64, duration: Duration) -> anyhow::Result<Run> {
    let folder = tempfile::tempdir()?;
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    // Cameras give whole numbers of frames a second.
    let rate = (frames_per_second / cameras as f64).round().max(1.0);
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
    let mut latencies: Vec<(f64, Split)> = Vec::new();
    let mut scored = vec![0usize; cameras];
    let mut not_inspected = 0;
    let whole = WARM_UP + duration;
    while began.elapsed() < whole || latencies.is_empty() && began.elapsed() < whole + PATIENCE {
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
        let split = Split::of(decision.latency, (now - decision.decided_us) as f64 / 1e3);
        latencies.push(((now - decision.captured_us) as f64 / 1e3, split));
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
    latencies.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share).round() as usize].0;
    let slowest = &latencies[latencies.len() - latencies.len().div_ceil(100)..];
    let mean = latencies.len() as f64 / cameras as f64;
    let share = |count: Option<&usize>| count.map_or(0.0, |&count| count as f64 / mean);
    Ok(Run {
        cameras,
        offered: rate * cameras as f64,
        load: 0.0,
        load_of_sessions: 0.0,
        frames_per_second: latencies.len() as f64 / seconds,
        cpu_ms: cpu * 1e3 / latencies.len() as f64,
        latency_ms: Percentiles { p50: at(0.5), p99: at(0.99) },
        split_ms: Split::mean(latencies.iter().map(|(_, split)| split)),
        slowest_split_ms: Split::mean(slowest.iter().map(|(_, split)| split)),
        not_inspected,
        copies_a_frame: summary.stats.copied as f64 / summary.stats.frames.max(1) as f64,
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
         sessions = {}\npinned = {}\n[batching]\nmax_batch = {}\nmax_wait_ms = {}\n\
         [outbox]\nfile = {}\n[mqtt.broker]\nkind = \"embedded\"\nlisten = \"127.0.0.1:{port}\"\n",
        quoted(&bundle),
        wish.provider,
        wish.sessions,
        wish.pinned,
        wish.max_batch,
        wish.max_wait_ms,
        quoted(&folder.join("outbox.sqlite")),
    );
    let Size { width, height } = wish.frame;
    for camera in 0..cameras {
        // Painted once: the processor paints no frames for a real camera. Every frame is that picture, so that
        // none need be copied for want of buffers.
        write!(
            text,
            "[[camera]]\nname = \"camera{camera}\"\npipeline = \"still\"\nlent_buffers = 1024\n[camera.parameters]\n\
             width = {width}\nheight = {height}\nrate = {rate}\n"
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
