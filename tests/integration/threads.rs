//! Where a line's threads run and how the scheduler treats them, as the kernel says it.

use std::process::{Child, Stdio};

use crate::run::{Site, linegate, wait_until};

/// A thread of another process.
#[derive(Debug, PartialEq)]
struct Thread {
    name: String,
    /// Cores that it may run on, as the kernel writes them.
    cores: String,
    /// Its turns, ns; 0 where the kernel knows none of a thread's own.
    turn: u64,
}

/// The threads of a process that runs, its first one first.
fn threads(process: u32) -> Vec<Thread> {
    let folder = format!("/proc/{process}/task");
    let mut numbers: Vec<i32> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap())
        .collect();
    numbers.sort_unstable();
    let thread = |&number: &i32| {
        let read = |file: &str| std::fs::read_to_string(format!("{folder}/{number}/{file}"));
        let status = read("status").ok()?;
        let cores = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap();
        Some(Thread { name: read("comm").ok()?.trim().into(), cores: cores.trim().into(), turn: turn(number)? })
    };
    // One that ended meanwhile is none.
    numbers.iter().filter_map(thread).collect()
}

#[expect(unsafe_code, reason = "the kernel's call, with the structure that its header gives")]
fn turn(thread: i32) -> Option<u64> {
    // SAFETY: a structure of numbers.
    let mut attributes: libc::sched_attr = unsafe { std::mem::zeroed() };
    let size = size_of::<libc::sched_attr>() as u32;
    // SAFETY: the kernel writes at most `size` bytes there, and only while the call lasts.
    let result = unsafe { libc::syscall(libc::SYS_sched_getattr, thread, &raw mut attributes, size, 0) };
    (result == 0).then_some(attributes.sched_runtime)
}

/// A line of one test camera and two scorers, in a process of its own.
struct Running {
    process: Child,
    _site: Site,
}

impl Running {
    fn start(model: &str) -> Self {
        let head = format!("[model]\nbundle = \"bundle\"\nsessions = 2\nthreads = 1\n{model}\n");
        let mut site = Site::new(&head).embedded();
        site.add(
            "[[camera]]\nname = \"cam\"\npipeline = \"test\"\nparameters = { width = 96, height = 64, rate = 20 }\n",
        );
        let process = linegate(&["run", "--config", site.path().to_str().unwrap()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { process, _site: site }
    }

    fn threads(&self) -> Vec<Thread> {
        threads(self.process.id())
    }

    /// Cores of each scorer, once there are both and they are where they belong.
    fn scorers(&self, settled: impl Fn(&str) -> bool) -> Vec<String> {
        let of = || {
            let scorers = self.threads().into_iter().filter(|thread| thread.name == "scorer");
            scorers.map(|thread| thread.cores).collect::<Vec<_>>()
        };
        wait_until(|| of().iter().filter(|cores| settled(cores)).count() == 2);
        of()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn is_one(cores: &str) -> bool {
    cores.parse::<usize>().is_ok()
}

#[test]
fn scorers_that_are_to_be_bound_have_a_core_each_and_nobody_else_is_bound() {
    let line = Running::start("pinned = true");
    let scorers = line.scorers(is_one);
    let threads = line.threads();
    let all = &threads[0].cores;
    assert_eq!(scorers[0] == scorers[1], is_one(all), "{threads:?}");
    let others: Vec<_> = threads.iter().filter(|thread| thread.name != "scorer" && thread.cores != *all).collect();
    assert!(others.is_empty(), "{others:?}");
}

#[test]
fn by_themselves_threads_run_on_every_core_and_those_that_hand_on_have_short_turns() {
    let line = Running::start("");
    let whole = line.threads()[0].cores.clone();
    assert_eq!(line.scorers(|cores| cores == whole), [whole.as_str(); 2]);
    let usual = line.threads().iter().find(|thread| thread.name == "scorer").unwrap().turn;
    // The source's thread is named by GStreamer after its element, and named late.
    for name in ["outbox", "router-0", "broker", "publishing", "deadlines", "intake", "videotestsrc"] {
        // A kernel that knows no turns of a thread's own says 0 of everybody.
        wait_until(|| {
            let of_name =
                |thread: &Thread| thread.name.starts_with(name) && thread.turn == if usual == 0 { 0 } else { 100_000 };
            line.threads().iter().any(of_name)
        });
    }
    assert!(usual == 0 || usual > 100_000, "a scorer's turns are the kernel's own: {usual}");
}
