//! Hosts that deny system calls, as filters of container engines do.

use rustix::io::Errno;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};
use std::{collections::BTreeMap, io, os::unix::process::CommandExt, process::Command};

/// A system call that [`deny`] knows by its name and number on x86-64.
pub type Call = (&'static str, i64);

/// Has `command` run under a filter that answers these system calls with `errno`, and allows all others.
///
/// # Panics
///
/// When the filter cannot be made.
pub fn deny<'c>(command: &'c mut Command, calls: &[Call], errno: Errno) -> &'c mut Command {
    let rules: BTreeMap<_, _> = calls.iter().map(|&(_, number)| (number, Vec::new())).collect();
    let denied = SeccompAction::Errno(errno.raw_os_error().cast_unsigned());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, denied, TargetArch::x86_64);
    let program: BpfProgram = filter.and_then(TryInto::try_into).unwrap_or_else(|error| panic!("{error}"));
    let install = move || {
        rustix::thread::set_no_new_privs(true)?;
        seccompiler::apply_filter(&program).map_err(|_| io::Error::from(Errno::INVAL))
    };
    // SAFETY: between fork and exec this makes two system calls, and touches no lock and no heap.
    unsafe { command.pre_exec(install) }
}
