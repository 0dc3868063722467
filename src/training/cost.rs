//! What training costs: processor and wall seconds per phase, peak memory. Linux only.

use std::time::Instant;

use crate::bundle::Phase;

/// Processor seconds of this process so far, all threads.
pub(crate) fn cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

/// Highest resident memory of this process so far, MiB; 0 where `/proc` cannot be read.
pub(crate) fn peak_memory_mib() -> f64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    text.lines()
        .find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix("kB")?.trim().parse::<f64>().ok())
        .unwrap_or(0.0)
        / 1024.0
}

/// Measures phases that follow each other.
#[derive(Debug)]
pub(crate) struct PhaseClock {
    phases: Vec<Phase>,
    running: Option<(String, f64, Instant)>,
}

impl PhaseClock {
    pub(crate) fn new() -> Self {
        Self { phases: Vec::new(), running: None }
    }

    /// Ends the running phase and begins the next.
    pub(crate) fn start(&mut self, name: &str) {
        self.end();
        self.running = Some((name.to_owned(), cpu_seconds(), Instant::now()));
    }

    fn end(&mut self) {
        if let Some((name, cpu, wall)) = self.running.take() {
            self.phases.push(Phase {
                name,
                cpu_seconds: cpu_seconds() - cpu,
                wall_seconds: wall.elapsed().as_secs_f64(),
            });
        }
    }

    /// Ends the running phase and gives all.
    pub(crate) fn finish(mut self) -> Vec<Phase> {
        self.end();
        self.phases
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn work_shows_as_processor_seconds_and_memory() {
        let before = super::cpu_seconds();
        let mut x = 0u64;
        while super::cpu_seconds() < before + 0.05 {
            x = std::hint::black_box(x.wrapping_add(1));
        }
        assert!(super::peak_memory_mib() > 1.0);
    }
}
