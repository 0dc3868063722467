//! The cores that this process may use, and threads that are bound to one each.

use std::io;
use std::num::NonZeroUsize;
use std::sync::OnceLock;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// What the process may use, as it was before any thread was bound: a bound thread is told of one core alone.
struct Cores {
    count: usize,
    /// The system's numbers of them; none where it does not say.
    numbers: Vec<usize>,
}

static CORES: OnceLock<Cores> = OnceLock::new();

fn cores() -> &'static Cores {
    CORES.get_or_init(|| {
        let numbers = sched_getaffinity(None)
            .map(|set| (0..CpuSet::MAX_CPU).filter(|&core| set.is_set(core)).collect())
            .unwrap_or_default();
        // ONNX Runtime's own count ignores the limits of a container.
        Cores { count: std::thread::available_parallelism().map_or(1, NonZeroUsize::get), numbers }
    })
}

/// How many there are, at least one.
pub(super) fn count() -> usize {
    cores().count
}

/// A core for each of a session's threads, where `number` sessions of as many threads come before it; from the first
/// core again where there are too few. None where the system does not say which there are.
pub(super) fn of_session(number: usize, threads: usize) -> Vec<usize> {
    let all = cores().numbers.iter().copied().cycle();
    all.skip(number * threads % cores().numbers.len().max(1)).take(threads).collect()
}

/// How ONNX Runtime wants to be told the cores of a session's threads: it makes all but the first, which is the one that
/// calls it, and counts cores from 1.
pub(super) fn for_runtime(cores: &[usize]) -> String {
    cores.iter().skip(1).map(|core| (core + 1).to_string()).collect::<Vec<_>>().join(";")
}

/// Binds this thread, and those that it will start, to a core.
pub(super) fn bind(core: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    Ok(sched_setaffinity(None, &set)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_have_cores_of_their_own_while_there_are_enough() {
        let all = &cores().numbers;
        assert!(count() >= 1 && all.len() >= count());
        let first = of_session(0, 1);
        assert_eq!(first, all[..1]);
        assert_eq!(of_session(all.len(), 1), first);
        let every: Vec<_> = (0..all.len()).flat_map(|number| of_session(number, 1)).collect();
        assert_eq!(every, *all);
        assert_eq!(of_session(0, all.len() + 1).last(), first.first());
        assert_eq!(of_session(1, all.len()), *all);
    }

    #[test]
    fn the_runtime_is_told_the_cores_of_the_threads_that_it_makes_and_counts_from_one() {
        assert_eq!(for_runtime(&[0, 1, 6]), "2;7");
        assert_eq!(for_runtime(&[3]), "");
    }

    #[test]
    fn a_bound_thread_is_on_its_core_and_the_count_stays() {
        let (before, core) = (count(), of_session(1, 1)[0]);
        std::thread::spawn(move || {
            bind(core).unwrap();
            let set = sched_getaffinity(None).unwrap();
            assert!(set.count() == 1 && set.is_set(core));
            assert_eq!((count(), of_session(1, 1)), (before, vec![core]));
        })
        .join()
        .unwrap();
    }
}
