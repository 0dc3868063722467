//! `linegate tune`.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::bundle::Bundle;
use crate::scoring::{Model, Provider, SessionOptions};
use crate::training::cost::cpu_seconds;

/// Find the sessions, threads and batch that score a bundle fastest on this machine
///
/// First runs the bundle's model in one session with a thread per core and in several sessions that share the
/// cores, their threads waiting by sleeping and by spinning, on batches of 1 to 8, in turns. Then, on a processor, the
/// best of these beside itself with each thread bound to a core, and with memory given back after each run. Prints
/// what to put into the line's configuration: the most frames a second; of what comes within 3 % of that
/// the smallest batch, for a batch makes its first frame wait, then without spinning, which keeps the cores of an idle
/// line busy, then the fewest sessions, unbound, with memory kept.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The bundle
    #[arg(long, value_name = "BUNDLE")]
    bundle: PathBuf,
    /// Execution provider to measure: tensorrt, cuda, openvino or cpu
    #[arg(long, value_name = "NAME", default_value = "cpu")]
    provider: Provider,
    /// Measured seconds in all
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Frames a second that count as the same.
const ALIKE: f64 = 0.97;
/// One turn of one way, counted.
const TURN: Duration = Duration::from_millis(200);
/// Before it, not counted: threads that have just started share a core until the scheduler has spread them, and the first
/// run makes room for the others.
const SETTLING: Duration = Duration::from_millis(80);
const BATCHES: [usize; 4] = [1, 2, 4, 8];
/// Share of the time that goes to sessions, threads and batches; the rest is for what is tried with the best of them.
const FIRST: f64 = 0.6;

/// One way to run the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
struct Way {
    /// Beside each other.
    sessions: usize,
    /// Of each.
    threads: usize,
    spinning: bool,
    /// Whether each thread has a core of its own.
    pinned: bool,
    /// Whether the memory of a run is kept for the next.
    arena: bool,
    batch: usize,
}

/// What a way gave.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Measured {
    #[serde(flatten)]
    way: Way,
    frames_per_second: f64,
    /// Processor time of a frame, ms.
    cpu_ms: f64,
    /// Mean time of a run, ms.
    run_ms: f64,
}

/// Every way, and which was chosen.
#[derive(Debug, Serialize)]
struct Tuning {
    chosen: Measured,
    ways: Vec<Measured>,
}

/// Sessions beside each other at most.
const SESSIONS: usize = 8;

/// What was done in a time; seconds.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Spent {
    pub(super) runs: f64,
    pub(super) wall: f64,
    /// Of the process.
    pub(super) cpu: f64,
    /// What 99 of 100 runs took at most.
    pub(super) slow: f64,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let tuning = tune(arguments)?;
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&tuning)?);
    } else {
        tuning.print();
    }
    Ok(ExitCode::SUCCESS)
}

impl Tuning {
    fn print(&self) {
        println!("sessions  threads  waiting   cores  memory   batch  frames/s  CPU ms a frame  ms a run");
        for measured in &self.ways {
            let Way { sessions, threads, spinning, pinned, arena, batch } = measured.way;
            println!(
                "{sessions:8}  {threads:7}  {}  {}  {}  {batch:5}  {:8.1}  {:14.1}  {:8.1}{}",
                if spinning { "spinning" } else { "sleeping" },
                if pinned { "bound" } else { "any  " },
                if arena { "kept " } else { "given" },
                measured.frames_per_second,
                measured.cpu_ms,
                measured.run_ms,
                if *measured == self.chosen { "  <-" } else { "" },
            );
        }
        let Way { sessions, threads, spinning, pinned, arena, batch } = self.chosen.way;
        println!("\nIn the line's configuration:\n\n[model]\nsessions = {sessions}\nthreads = {threads}");
        println!("spinning = {spinning}\npinned = {pinned}\narena = {arena}\n\n[batching]\nmax_batch = {batch}");
    }
}

/// Measures the ways, and the best of them in what further ways there are.
fn tune(arguments: &Arguments) -> anyhow::Result<Tuning> {
    let bundle = Bundle::open(&arguments.bundle)?;
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let time = Duration::from_secs(arguments.seconds);
    // Of an accelerator's sessions neither cores nor memory are chosen here.
    let on_processor = arguments.provider == Provider::Cpu;
    let first = if on_processor { FIRST } else { 1.0 };
    let mut ways = measure(&bundle, arguments.provider, &ways(cores), time.mul_f64(first))?;
    let mut chosen = choose(&ways);
    if on_processor {
        let further = measure(&bundle, arguments.provider, &further(chosen.way), time.mul_f64(1.0 - first))?;
        chosen = choose(&further);
        ways.extend(further);
    }
    Ok(Tuning { chosen, ways })
}

/// Sessions, threads and batches on so many cores.
fn ways(cores: usize) -> Vec<Way> {
    let sessions = std::iter::successors(Some(1), |sessions| Some(2 * sessions));
    let sessions = sessions.take_while(|&sessions| sessions <= cores.min(SESSIONS));
    let with_waiting = sessions.flat_map(|sessions| [(sessions, false), (sessions, true)]);
    // One thread has no others to wait for it.
    let useful = with_waiting.filter(|&(sessions, spinning)| !spinning || cores / sessions > 1);
    useful
        .flat_map(|(sessions, spinning)| {
            let threads = cores / sessions;
            BATCHES.map(|batch| Way { sessions, threads, spinning, pinned: false, arena: true, batch })
        })
        .collect()
}

/// What is tried with the best of [`ways`], which is measured again beside it.
fn further(best: Way) -> [Way; 3] {
    [best, Way { pinned: true, ..best }, Way { arena: false, ..best }]
}

/// Runs the ways in turns.
fn measure(bundle: &Bundle, provider: Provider, ways: &[Way], time: Duration) -> anyhow::Result<Vec<Measured>> {
    // Ways that differ by the batch alone share their sessions.
    let mut opened: Vec<(Way, Vec<Model>)> = Vec::new();
    let mut places = Vec::with_capacity(ways.len());
    for way in ways {
        let alike = opened.iter().position(|(other, _)| Way { batch: way.batch, ..*other } == *way);
        places.push(match alike {
            Some(place) => place,
            None => {
                opened.push((*way, open(bundle, provider, way)?));
                opened.len() - 1
            }
        });
    }
    let mut spent = vec![Spent::default(); ways.len()];
    let until = Instant::now() + time;
    loop {
        for ((way, &place), spent) in ways.iter().zip(&places).zip(&mut spent) {
            let batch = NonZeroUsize::new(way.batch).unwrap_or(NonZeroUsize::MIN);
            let turn = score_for(TURN, &mut opened[place].1, batch)?;
            spent.runs += turn.runs;
            spent.wall += turn.wall;
            spent.cpu += turn.cpu;
        }
        if Instant::now() >= until {
            break;
        }
    }
    let measured = |(way, spent): (&Way, &Spent)| {
        let frames = spent.runs * way.batch as f64;
        Measured {
            way: *way,
            frames_per_second: frames / spent.wall,
            cpu_ms: spent.cpu * 1e3 / frames,
            run_ms: spent.wall * 1e3 * way.sessions as f64 / spent.runs,
        }
    };
    Ok(ways.iter().zip(&spent).map(measured).collect())
}

/// The sessions of a way.
fn open(bundle: &Bundle, provider: Provider, way: &Way) -> anyhow::Result<Vec<Model>> {
    let Way { sessions, threads, spinning, pinned, arena, .. } = *way;
    let load = |number| {
        let options = SessionOptions {
            providers: vec![provider, Provider::Cpu],
            // A slower provider in its place would be measured under its name.
            required: true,
            sessions,
            threads,
            spinning,
            pinned,
            number,
            arena,
            engine_cache: None,
        };
        Model::load(bundle, &options)
    };
    Ok((0..sessions).map(load).collect::<Result<_, _>>()?)
}

/// Runs every session on batches of that size, one after the other, for a time, once they have settled.
pub(super) fn score_for(time: Duration, models: &mut [Model], batch: NonZeroUsize) -> anyhow::Result<Spent> {
    let settled = Instant::now() + SETTLING;
    let until = settled + time;
    let (loops, busy) = std::thread::scope(|scope| {
        let loops: Vec<_> = models
            .iter_mut()
            .map(|model| {
                scope.spawn(move || {
                    model.bind_thread();
                    while Instant::now() < settled {
                        model.time_run(batch)?;
                    }
                    let began = Instant::now();
                    let mut times = vec![model.time_run(batch)?];
                    while Instant::now() < until {
                        times.push(model.time_run(batch)?);
                    }
                    anyhow::Ok((began.elapsed().as_secs_f64(), times))
                })
            })
            .collect();
        // Read while every thread works.
        std::thread::sleep(SETTLING);
        let (began, cpu) = (Instant::now(), cpu_seconds());
        std::thread::sleep(time);
        let busy = (cpu_seconds() - cpu) / began.elapsed().as_secs_f64();
        let joined =
            loops.into_iter().map(|one| one.join().map_err(|_| anyhow::anyhow!("a session's thread panicked"))?);
        anyhow::Ok((joined.collect::<anyhow::Result<Vec<_>>>()?, busy))
    })?;
    let per_second: f64 = loops.iter().map(|(wall, times)| times.len() as f64 / wall).sum();
    let mut times: Vec<_> = loops.into_iter().flat_map(|(_, times)| times).collect();
    times.sort_unstable();
    let slow = times.get(times.len().saturating_sub(1) * 99 / 100).map_or(0.0, Duration::as_secs_f64);
    let wall = times.len() as f64 / per_second;
    Ok(Spent { runs: times.len() as f64, wall, cpu: busy * wall, slow })
}

/// See [`Arguments`].
fn choose(ways: &[Measured]) -> Measured {
    let best = ways.iter().map(|way| way.frames_per_second).fold(0.0, f64::max);
    let alike = ways.iter().filter(|way| way.frames_per_second >= ALIKE * best);
    let order = |measured: &&Measured| {
        let Way { sessions, spinning, pinned, arena, batch, .. } = measured.way;
        (batch, spinning, sessions, pinned, !arena)
    };
    alike.min_by_key(order).cloned().expect("the best is within 3 % of itself")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(way: Way, frames_per_second: f64) -> Measured {
        Measured { way, frames_per_second, cpu_ms: 1.0, run_ms: 1.0 }
    }

    #[test]
    fn of_ways_that_are_as_fast_the_smallest_batch_wins_then_the_fewest_sessions_of_those_that_sleep() {
        let way = |sessions, spinning, batch, frames_per_second| {
            let way = Way { sessions, threads: 4 / sessions, spinning, pinned: false, arena: true, batch };
            measured(way, frames_per_second)
        };
        let ways = [
            way(1, false, 1, 60.0),
            way(2, false, 1, 97.5),
            way(1, true, 1, 98.0),
            way(4, false, 1, 98.0),
            way(2, false, 4, 100.0),
            way(2, true, 8, 99.0),
        ];
        assert_eq!(choose(&ways), ways[1]);
        assert_eq!(choose(&ways[4..]), ways[4]);
        assert_eq!(choose(&ways[..1]), ways[0]);
    }

    #[test]
    fn threads_are_bound_and_memory_given_back_only_where_that_is_faster() {
        let best = ways(2)[0];
        let of = |speeds: [f64; 3]| {
            let ways: Vec<_> = further(best).into_iter().zip(speeds).map(|(way, speed)| measured(way, speed)).collect();
            choose(&ways).way
        };
        assert_eq!(of([100.0, 102.0, 102.0]), best);
        assert_eq!(of([100.0, 104.0, 90.0]), Way { pinned: true, ..best });
        assert_eq!(of([100.0, 90.0, 104.0]), Way { arena: false, ..best });
    }

    #[test]
    fn sessions_share_the_cores_and_lone_threads_do_not_spin() {
        let of = |cores| {
            let ways = ways(cores).into_iter().filter(|way| way.batch == 1);
            ways.map(|way| (way.sessions, way.threads, way.spinning)).collect::<Vec<_>>()
        };
        assert_eq!(of(1), [(1, 1, false)]);
        assert_eq!(of(2), [(1, 2, false), (1, 2, true), (2, 1, false)]);
        assert_eq!(of(64).len(), 8);
        assert_eq!(ways(2).len(), 3 * BATCHES.len());
    }
}
