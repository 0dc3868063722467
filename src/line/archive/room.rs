//! Whether there is room to archive: the disk and the memory are for decisions first.

use std::path::Path;

use crate::config;

/// What is left on the machine; unknown where the system does not tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Free space on the archive's disk, MiB.
    pub disk_mib: Option<u64>,
    /// Memory that can be had without swapping, MiB; the smaller of the machine's and the cgroup's.
    pub memory_mib: Option<u64>,
}

impl Room {
    /// Looks at the disk of `directory` and at the memory.
    pub fn look(directory: &Path) -> Self {
        let disk_mib =
            rustix::fs::statvfs(directory).ok().map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize) >> 20);
        let read = |file: &str| std::fs::read_to_string(file).ok();
        let machine = read("/proc/meminfo").and_then(|text| available_mib(&text));
        let cgroup = read("/sys/fs/cgroup/memory.max")
            .zip(read("/sys/fs/cgroup/memory.current"))
            .and_then(|(most, used)| within_limit_mib(&most, &used));
        Self { disk_mib, memory_mib: machine.into_iter().chain(cgroup).min() }
    }

    /// What there is too little of; none where a frame may be archived.
    pub fn shortage(&self, config: &config::Archive) -> Option<String> {
        let short = |what: &str, left: Option<u64>, least: u64, key: &str| {
            let left = left.filter(|left| *left < least)?;
            Some(format!("{left} MiB of {what} are left, {least} are kept free (`archive.{key}`)"))
        };
        short("disk", self.disk_mib, config.min_free_mib, "min_free_mib")
            .or_else(|| short("memory", self.memory_mib, config.min_memory_mib, "min_memory_mib"))
    }
}

fn available_mib(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib >> 10)
}

/// None where the limit is `max`: then the machine's memory counts alone.
fn within_limit_mib(most: &str, used: &str) -> Option<u64> {
    let most: u64 = most.trim().parse().ok()?;
    let used: u64 = used.trim().parse().ok()?;
    Some(most.saturating_sub(used) >> 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_words_are_understood() {
        assert_eq!(available_mib("MemTotal: 9 kB\nMemAvailable:    2097152 kB\n"), Some(2048));
        assert_eq!(available_mib("MemTotal: 9 kB\n"), None);
        assert_eq!(within_limit_mib("max\n", "5\n"), None);
        assert_eq!(within_limit_mib("4194304\n", "1048576\n"), Some(3));
        assert_eq!(within_limit_mib("1\n", "1048576\n"), Some(0));
    }

    #[test]
    fn too_little_disk_or_memory_is_a_shortage_and_what_is_unknown_is_none() {
        let config = config::Archive {
            directory: "a".into(),
            quota_mib: 1,
            accept_sample: 0.0,
            min_free_mib: 100,
            min_memory_mib: 50,
        };
        let shortage = |disk_mib, memory_mib| Room { disk_mib, memory_mib }.shortage(&config);
        assert_eq!(shortage(Some(100), Some(50)), None);
        assert_eq!(shortage(None, None), None);
        assert!(shortage(Some(99), Some(50)).is_some_and(|text| text.contains("disk")));
        assert!(shortage(Some(100), Some(49)).is_some_and(|text| text.contains("memory")));
    }
}
