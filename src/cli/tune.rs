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
/// Runs the bundle's model in one session with a thread per core and in several sessions that share the
/// cores, their threads waiting by sleeping and by spinning, on batches of 1 to 8, in turns, and prints
/// what to put into the line's configuration: the most frames a second; of what comes within 3 % of that
/// the smallest batch, for a batch makes its first frame wait, then the fewest sessions, without spinning.
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
/// One turn of one way.
const TURN: Duration = Duration::from_millis(100);
const BATCHES: [usize; 4] = [1, 2, 4, 8];

/// One way to run the model, and what it gave.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Way {
    /// Beside each other.
    sessions: usize,
    /// Of each.
    threads: usize,
    spinning: bool,
    batch: usize,
    frames_per_second: f64,
    /// Processor time of a frame, ms.
    cpu_ms: f64,
    /// Mean time of a run, ms.
    run_ms: f64,
}

/// Every way, and which was chosen.
#[derive(Debug, Serialize)]
struct Tuning {
    chosen: Way,
    ways: Vec<Way>,
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
    let ways = measure(arguments)?;
    let chosen = choose(&ways);
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&Tuning { chosen, ways })?);
        return Ok(ExitCode::SUCCESS);
    }
    println!("sessions  threads  waiting   batch  frames/s  CPU ms a frame  ms a run");
    for way in &ways {
        let (waiting, mark) =
            (if way.spinning { "spinning" } else { "sleeping" }, if *way == chosen { "  <-" } else { "" });
        println!(
            "{:8}  {:7}  {waiting}  {:5}  {:8.1}  {:14.1}  {:8.1}{mark}",
            way.sessions, way.threads, way.batch, way.frames_per_second, way.cpu_ms, way.run_ms
        );
    }
    println!(
        "\nIn the line's configuration:\n\n[model]\nsessions = {}\nthreads = {}\nspinning = {}\n",
        chosen.sessions, chosen.threads, chosen.spinning
    );
    println!("[batching]\nmax_batch = {}", chosen.batch);
    Ok(ExitCode::SUCCESS)
}

fn measure(arguments: &Arguments) -> anyhow::Result<Vec<Way>> {
    let bundle = Bundle::open(&arguments.bundle)?;
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let mut models = Vec::new();
    for sessions in std::iter::successors(Some(1), |sessions| Some(2 * sessions)) {
        if sessions > cores.min(SESSIONS) {
            break;
        }
        let threads = cores / sessions;
        for spinning in [false, true] {
            if spinning && threads == 1 {
                continue;
            }
            let providers = vec![arguments.provider, Provider::Cpu];
            // A slower provider in its place would be measured under its name.
            let options =
                SessionOptions { providers, required: true, sessions, threads, spinning, ..SessionOptions::default() };
            let of_its = (0..sessions).map(|_| Model::load(&bundle, &options)).collect::<Result<Vec<_>, _>>()?;
            models.push((threads, spinning, of_its));
        }
    }
    let batches = BATCHES.map(|batch| NonZeroUsize::new(batch).unwrap_or(NonZeroUsize::MIN));
    let mut spent = vec![[Spent::default(); BATCHES.len()]; models.len()];
    let mut until = None;
    // The first round is for the arenas; one more is made, however short the time.
    while until.is_none_or(|until| Instant::now() < until) || spent[0][0].runs == 0.0 {
        for ((_, _, models), spent) in models.iter_mut().zip(&mut spent) {
            for (&batch, spent) in batches.iter().zip(spent) {
                let turn = score_for(TURN, models, batch)?;
                if until.is_some() {
                    spent.runs += turn.runs;
                    spent.wall += turn.wall;
                    spent.cpu += turn.cpu;
                }
            }
        }
        until.get_or_insert_with(|| Instant::now() + Duration::from_secs(arguments.seconds));
    }
    let way = |(threads, spinning, sessions): (usize, bool, usize), batch: usize, spent: &Spent| {
        let frames = spent.runs * batch as f64;
        Way {
            sessions,
            threads,
            spinning,
            batch,
            frames_per_second: frames / spent.wall,
            cpu_ms: spent.cpu * 1e3 / frames,
            run_ms: spent.wall * 1e3 * sessions as f64 / spent.runs,
        }
    };
    Ok(models
        .iter()
        .zip(&spent)
        .flat_map(|((threads, spinning, models), spent)| {
            let of = (*threads, *spinning, models.len());
            BATCHES.iter().zip(spent).map(move |(&batch, spent)| way(of, batch, spent))
        })
        .collect())
}

/// Runs every session on batches of that size, one after the other, for a time.
pub(super) fn score_for(time: Duration, models: &mut [Model], batch: NonZeroUsize) -> anyhow::Result<Spent> {
    let (began, cpu) = (Instant::now(), cpu_seconds());
    let mut times = std::thread::scope(|scope| {
        let loops: Vec<_> = models
            .iter_mut()
            .map(|model| {
                scope.spawn(move || {
                    let mut times = Vec::new();
                    while began.elapsed() < time {
                        times.push(model.time_run(batch)?);
                    }
                    anyhow::Ok(times)
                })
            })
            .collect();
        let joined =
            loops.into_iter().map(|one| one.join().map_err(|_| anyhow::anyhow!("a session's thread panicked"))?);
        joined.collect::<anyhow::Result<Vec<_>>>()
    })?
    .concat();
    let (wall, cpu) = (began.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    times.sort_unstable();
    let slow = times.get(times.len().saturating_sub(1) * 99 / 100).map_or(0.0, Duration::as_secs_f64);
    Ok(Spent { runs: times.len() as f64, wall, cpu, slow })
}

/// See [`Arguments`].
fn choose(ways: &[Way]) -> Way {
    let best = ways.iter().map(|way| way.frames_per_second).fold(0.0, f64::max);
    let alike = ways.iter().filter(|way| way.frames_per_second >= ALIKE * best);
    let chosen = alike.min_by_key(|way| (way.batch, way.sessions, way.spinning));
    chosen.cloned().expect("the best is within 3 % of itself")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_ways_that_are_as_fast_the_smallest_batch_wins_then_the_fewest_sessions_that_sleep() {
        let way = |sessions, spinning, batch, frames_per_second| Way {
            sessions,
            threads: 4 / sessions,
            spinning,
            batch,
            frames_per_second,
            cpu_ms: 1.0,
            run_ms: 1.0,
        };
        let ways = [
            way(1, false, 1, 60.0),
            way(2, false, 1, 97.5),
            way(2, true, 1, 98.0),
            way(4, false, 1, 98.0),
            way(2, false, 4, 100.0),
            way(2, true, 8, 99.0),
        ];
        assert_eq!(choose(&ways), ways[1]);
        assert_eq!(choose(&ways[4..]), ways[4]);
        assert_eq!(choose(&ways[..1]), ways[0]);
    }
}
