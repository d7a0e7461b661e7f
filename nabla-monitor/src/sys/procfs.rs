//! What `/proc` says.

use crate::usage::ResourceUsage;
use nabla_core::{Permissions, elf::PageRange};
use std::{fmt::Display, fs, io, time::Duration};

/// The number in `/proc/sys/NAME`; `None` when it cannot be read.
pub fn sysctl(name: &str) -> Option<u64> {
    fs::read_to_string(format!("/proc/sys/{name}")).ok()?.trim().parse().ok()
}

/// The number in a line `NAME N` or `NAME N kB`, as in `/proc/vmstat`, `/proc/PID/status` (with the colon as part of
/// the name) and a cgroup's `memory.events`. Does not allocate.
pub fn counter(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix([' ', '\t']))?;
    rest.trim().trim_end_matches(" kB").parse().ok()
}

/// A line of `/proc/PID/maps`, and whether it is about a file.
pub fn mapping(line: &str) -> Option<(PageRange, bool)> {
    let (range, rest) = line.split_once(' ')?;
    let (start, end) = range.split_once('-')?;
    let number = |text| u64::from_str_radix(text, 16).ok();
    let mut flags = rest.bytes();
    let mut flag = |letter| flags.next() == Some(letter);
    let permissions = Permissions { read: flag(b'r'), write: flag(b'w'), execute: flag(b'x') };
    let inode = rest.split_whitespace().nth(3)?;
    Some((PageRange { pages: number(start)?..number(end)?, permissions }, inode != "0"))
}

/// `/proc/PID/stat` or `/proc/PID/task/TID/stat`.
#[derive(Debug)]
pub struct Stat {
    /// One letter: see proc_pid_stat(5).
    state: u8,
    /// Times and page faults. Memory is not told exactly there.
    pub usage: ResourceUsage,
}

impl Stat {
    /// `task` is a number or `self`, or one of a thread as in `self/task/7`.
    pub fn of(task: impl Display) -> io::Result<Self> {
        let text = fs::read_to_string(format!("/proc/{task}/stat"))?;
        Self::parse(&text)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "/proc/PID/stat is malformed"))
    }

    fn parse(text: &str) -> Option<Self> {
        // The name, in parentheses, may contain anything; fields are counted from after it, the state being the third.
        let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace();
        let state = *fields.next()?.as_bytes().first()?;
        let numbers: Vec<u64> = fields.take(12).map(|field| field.parse().unwrap_or(0)).collect();
        let &[.., minor_faults, _, major_faults, _, user, system] = &numbers[..] else { return None };
        let ticks = rustix::param::clock_ticks_per_second().max(1);
        let time = |used: u64| Duration::from_nanos(used.saturating_mul(1_000_000_000 / ticks));
        let usage = ResourceUsage {
            user_time: time(user),
            system_time: time(system),
            minor_faults,
            major_faults,
            ..ResourceUsage::default()
        };
        Some(Self { state, usage })
    }

    /// Whether it is stopped, or has ended and was not waited for.
    pub fn is_stopped(&self) -> bool {
        matches!(self.state, b'T' | b't' | b'Z' | b'X')
    }
}

/// What a running process has used.
pub fn usage_of(pid: i32) -> io::Result<ResourceUsage> {
    let Stat { usage, .. } = Stat::of(pid)?;
    // The figures in `stat` lag behind by up to a few hundred KiB, which is more than a small guest has.
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let bytes = |name: &str| counter(&status, name).unwrap_or(0) * 1024;
    Ok(ResourceUsage { max_resident: bytes("VmHWM:"), resident: bytes("VmRSS:"), ..usage })
}

#[cfg(test)]
mod tests {
    use super::{super::own_pid, *};

    #[test]
    fn counter_reads_whole_names_only() {
        let text = "oom_kill_disable 0\nunder_oom 0\noom_kill 3\nVmRSS:\t     5 kB\n";
        assert_eq!(counter(text, "oom_kill"), Some(3));
        assert_eq!(counter(text, "oom"), None);
        assert_eq!(counter(text, "VmRSS:"), Some(5));
        assert_eq!(counter(text, "VmHWM:"), None);
    }

    #[test]
    fn mappings_are_parsed() {
        let parse = |line| mapping(line).unwrap();
        let (range, from_file) = parse("00100000-00123000 r-xp 00001000 fd:01 42   /memfd:app (deleted)");
        assert!(from_file && !parse("00200000-00300000 rw-p 00000000 00:00 0").1);
        assert_eq!(range.pages, 0x10_0000..0x12_3000);
        assert_eq!(range.permissions, Permissions { read: true, write: false, execute: true });
        assert_eq!(mapping("nonsense"), None);
    }

    #[test]
    fn stat_fields_are_counted_from_after_the_name() {
        let stat = Stat::parse("7 (a) b) T 1 7 7 0 -1 4194304 21 0 22 0 300 400 0 0 20 0").unwrap();
        assert!(stat.is_stopped());
        assert_eq!((stat.usage.minor_faults, stat.usage.major_faults), (21, 22));
        assert!(stat.usage.user_time < stat.usage.system_time);
        assert!(Stat::parse("nonsense").is_none());
        assert!(Stat::parse("7 (a) T 1 7").is_none());
    }

    #[test]
    fn usage_of_this_process_is_plausible() {
        let usage = usage_of(own_pid()).unwrap();
        assert!(usage.resident > 0 && usage.max_resident >= usage.resident / 2);
        assert!(usage.minor_faults > 0);
        assert!(!Stat::of(own_pid()).unwrap().is_stopped());
    }
}
