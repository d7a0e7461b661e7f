//! The steps from an opened image to a confined guest, by which a start that failed says where.

use crate::sys::procfs::sysctl;
use nabla_core::{ByteSize, abi::spt};
use rustix::io::Errno;
use std::{fmt, io};

/// A step of starting a guest. [`Error::Launch`](crate::Error::Launch) names the one that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LaunchStep {
    /// Compiling the system call filter.
    BuildFilter,
    /// Making the pipe by which the launcher reports.
    CreateReport,
    /// Starting the runtime's supervisor process.
    StartSupervisor,
    /// Writing the launcher's executable into a memory file.
    CreateLauncher,
    /// Creating the guest's process.
    CreateProcess,
    /// Creating namespaces for the guest's process.
    CreateNamespaces,
    /// Having the supervisor trace the process.
    Supervise,
    /// Giving the guest's descriptors their numbers.
    ArrangeDescriptors,
    /// Executing the launcher.
    ExecuteLauncher,
    /// Reading what the launcher reports.
    ReadReport,
    /// Attaching the debugger's side to the guest.
    AttachDebugger,
    /// Entering the guest's cgroup.
    EnterCgroup,
    /// Closing what the process has inherited.
    CloseInherited,
    /// Setting the process's name.
    NameProcess,
    /// Removing the signal at the parent's death.
    ClearParentDeathSignal,
    /// Setting the action of SIGPIPE.
    SetSigpipe,
    /// Setting the signal mask.
    SetSignalMask,
    /// Mapping this much guest memory.
    MapMemory(ByteSize),
    /// Asking for huge pages, or for none.
    SetHugePages,
    /// Mapping the image's segment at this address.
    MapSegment(u64),
    /// Reading the image's segment at this address.
    ReadSegment(u64),
    /// Setting the permissions of the image's pages at this address.
    ProtectPages(u64),
    /// Copying boot info into guest memory.
    CopyBootInfo,
    /// Creating the event set (epoll).
    CreateEventSet,
    /// Creating the timer.
    CreateTimer,
    /// Adding this descriptor to the event set.
    AddEvent(i32),
    /// Dropping supplementary groups.
    DropGroups,
    /// Changing the group id.
    SetGroup,
    /// Changing the user id.
    SetUser,
    /// Giving up new privileges.
    SetNoNewPrivileges,
    /// Creating a Landlock domain.
    CreateLandlockDomain,
    /// Entering the Landlock domain.
    EnterLandlockDomain,
    /// Giving up all capabilities.
    DropCapabilities,
    /// Setting whether the process can be dumped.
    SetDumpable,
    /// Setting the limit on this to 0.
    SetLimit(&'static str),
    /// Finding out whether system call filters can be used.
    ProbeFilter,
    /// Closing what only the launcher needed.
    CloseLauncherFiles,
    /// Reporting that the guest is about to run.
    Report,
    /// Loading the image into the memory of a virtual machine.
    LoadImage,
    /// Getting memory for page tables.
    CreatePageTables,
    /// Creating a virtual machine.
    CreateMachine,
    /// Giving the virtual machine its memory.
    SetMachineMemory,
    /// Creating a virtual processor.
    CreateVcpu,
    /// Asking KVM for the processor's features or its clock.
    QueryFeatures,
    /// Setting the virtual processor's features.
    SetFeatures,
    /// Setting the virtual processor's registers or signal mask.
    SetRegisters,
    /// Making event descriptors.
    CreateEvents,
    /// Setting up the devices of a virtual machine.
    CreateDevices,
    /// Starting a thread for the guest.
    StartThread,
    /// Confining the guest's thread.
    ConfineThread,
}

impl fmt::Display for LaunchStep {
    /// What is done, to be put after "cannot".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match *self {
            Self::BuildFilter => "build the system call filter",
            Self::CreateReport => "create a pipe",
            Self::StartSupervisor => "start the supervisor",
            Self::CreateLauncher => "make the launcher's file",
            Self::CreateProcess => "create a process",
            Self::CreateNamespaces => "create namespaces",
            Self::Supervise => "supervise the guest",
            Self::ArrangeDescriptors => "arrange the guest's descriptors",
            Self::ExecuteLauncher => "execute the launcher",
            Self::ReadReport => "read the launcher's report",
            Self::AttachDebugger => "attach the debugger's side to the guest",
            Self::EnterCgroup => "enter the cgroup",
            Self::CloseInherited => "close inherited descriptors",
            Self::NameProcess => "name the process",
            Self::ClearParentDeathSignal => "clear the signal at the parent's death",
            Self::SetSigpipe => "set the action of SIGPIPE",
            Self::SetSignalMask => "set the signal mask",
            Self::MapMemory(size) => return write!(f, "map {size} of guest memory"),
            Self::SetHugePages => "set huge pages for guest memory",
            Self::MapSegment(address) => return write!(f, "map the image's segment at {address:#x}"),
            Self::ReadSegment(address) => return write!(f, "read the image's segment at {address:#x}"),
            Self::ProtectPages(address) => return write!(f, "protect the image's pages at {address:#x}"),
            Self::CopyBootInfo => "copy the boot info",
            Self::CreateEventSet => "create the event set",
            Self::CreateTimer => "create the timer",
            Self::AddEvent(descriptor) => return write!(f, "add descriptor {descriptor} to the event set"),
            Self::DropGroups => "drop supplementary groups",
            Self::SetGroup => "change the group id",
            Self::SetUser => "change the user id",
            Self::SetNoNewPrivileges => "give up new privileges",
            Self::CreateLandlockDomain => "create a Landlock domain",
            Self::EnterLandlockDomain => "enter the Landlock domain",
            Self::DropCapabilities => "give up all capabilities",
            Self::SetDumpable => "set whether it can be dumped",
            Self::SetLimit(what) => return write!(f, "set the limit on {what} to 0"),
            Self::ProbeFilter => "use system call filters",
            Self::CloseLauncherFiles => "close the launcher's files",
            Self::Report => "report to the host program",
            Self::LoadImage => "load the image",
            Self::CreatePageTables => "get memory for page tables",
            Self::CreateMachine => "create a virtual machine",
            Self::SetMachineMemory => "give the virtual machine its memory",
            Self::CreateVcpu => "create a virtual processor",
            Self::QueryFeatures => "ask KVM for the processor's features",
            Self::SetFeatures => "set the virtual processor's features",
            Self::SetRegisters => "set the virtual processor's registers",
            Self::CreateEvents => "make event descriptors",
            Self::CreateDevices => "set up the devices",
            Self::StartThread => "start a thread for the guest",
            Self::ConfineThread => "confine the guest's thread",
        })
    }
}

impl LaunchStep {
    /// What to do about it when this step fails for this reason, where that is known.
    pub(crate) fn advice(self, reason: &io::Error) -> Option<String> {
        let errno = Errno::from_raw_os_error(reason.raw_os_error()?);
        let text = match (self, errno) {
            (Self::MapMemory(_), Errno::NOMEM) if sysctl("vm/overcommit_memory") == Some(2) => {
                "vm.overcommit_memory is 2, so all of it must be available at once: give the guest less memory, or set it to 0 or 1"
            }
            (Self::MapMemory(_), Errno::NOMEM) => {
                "give the guest less memory, or raise the limit on address space (ulimit -v)"
            }
            (Self::MapMemory(_), Errno::EXIST) => "give the guest less memory",
            (Self::SetHugePages, Errno::INVAL) => "this kernel has no transparent huge pages",
            (
                Self::MapSegment(_) | Self::ReadSegment(_) | Self::ProtectPages(_),
                Errno::ACCESS | Errno::PERM,
            ) => "is the image on a file system that forbids executing?",
            (Self::SetUser | Self::SetGroup | Self::DropGroups, Errno::PERM) => "another identity takes root",
            (Self::ExecuteLauncher, Errno::ACCESS) => {
                "is a security module in the way of executing from memory?"
            }
            (
                Self::CreateProcess | Self::StartSupervisor | Self::StartThread | Self::AttachDebugger,
                Errno::AGAIN,
            ) => "the limit on processes is reached (ulimit -u, or the cgroup's pids.max)",
            (Self::ArrangeDescriptors, _) => "the limit on open files may be too low (ulimit -n)",
            (Self::Supervise, _) => "is ptrace forbidden here? see /proc/sys/kernel/yama/ptrace_scope",
            (_, Errno::PERM | Errno::NOSYS) => {
                let call = self.call()?;
                return Some(format!(
                    "is {call} denied by a system call filter, as a container engine has one?"
                ));
            }
            _ => return None,
        };
        Some(text.to_owned())
    }

    /// The system call that this step is about, if it is about one.
    pub(crate) fn call(self) -> Option<&'static str> {
        Some(match self {
            Self::CreateReport => "pipe2",
            Self::StartSupervisor | Self::CreateProcess | Self::CreateNamespaces => "clone",
            Self::CreateLauncher => "memfd_create",
            Self::Supervise => "ptrace",
            Self::ArrangeDescriptors => "dup3",
            Self::ExecuteLauncher => "execveat",
            Self::EnterCgroup | Self::Report => "write",
            Self::CloseInherited => "close_range",
            Self::NameProcess
            | Self::ClearParentDeathSignal
            | Self::SetNoNewPrivileges
            | Self::SetDumpable => "prctl",
            Self::SetSigpipe => "rt_sigaction",
            Self::SetSignalMask => "rt_sigprocmask",
            Self::MapMemory(_) | Self::MapSegment(_) | Self::CreatePageTables => "mmap",
            Self::SetHugePages => "madvise",
            Self::ReadSegment(_) | Self::CopyBootInfo | Self::LoadImage => "pread64",
            Self::ProtectPages(_) => "mprotect",
            Self::CreateEventSet => "epoll_create1",
            Self::CreateTimer => "timerfd_create",
            Self::AddEvent(_) => "epoll_ctl",
            Self::DropGroups => "setgroups",
            Self::SetGroup => "setresgid",
            Self::SetUser => "setresuid",
            Self::CreateLandlockDomain => "landlock_create_ruleset",
            Self::EnterLandlockDomain => "landlock_restrict_self",
            Self::DropCapabilities => "capset",
            Self::SetLimit(_) => "prlimit64",
            Self::ProbeFilter => "seccomp",
            Self::CloseLauncherFiles => "close",
            Self::CreateEvents => "eventfd2",
            // The C library falls back on clone where it is told that there is no such call, and not where it is denied.
            Self::StartThread | Self::AttachDebugger => "clone3",
            Self::BuildFilter
            | Self::ReadReport
            | Self::CreateMachine
            | Self::SetMachineMemory
            | Self::CreateVcpu
            | Self::QueryFeatures
            | Self::SetFeatures
            | Self::SetRegisters
            | Self::CreateDevices
            | Self::ConfineThread => return None,
        })
    }
}

/// What to do about a launcher that the kernel killed, where that is known.
pub(crate) fn advice_when_killed() -> Option<String> {
    let (base, min) = (spt::MEMORY_BASE, sysctl("vm/mmap_min_addr")?);
    (min > base).then(|| {
        format!("vm.mmap_min_addr is {min}, and guests are loaded at {base}: sysctl vm.mmap_min_addr={base}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_follows_from_step_and_errno() {
        let advice = |step: LaunchStep, errno: Errno| step.advice(&errno.into());
        let memory = LaunchStep::MapMemory(ByteSize::gib(2));
        assert!(advice(memory, Errno::NOMEM).unwrap().contains("less memory"));
        assert_eq!(advice(memory, Errno::BUSY), None);
        assert!(advice(memory, Errno::PERM).unwrap().contains("mmap"));
        assert!(advice(LaunchStep::CloseInherited, Errno::NOSYS).unwrap().contains("close_range"));
        assert!(advice(LaunchStep::StartThread, Errno::PERM).unwrap().contains("clone3"));
        assert_eq!(advice(LaunchStep::BuildFilter, Errno::PERM), None);
        assert!(advice(LaunchStep::SetUser, Errno::PERM).unwrap().contains("root"));
        assert_eq!(advice(LaunchStep::SetUser, Errno::AGAIN), None);
        assert_eq!(LaunchStep::SetUser.advice(&io::Error::other("no errno")), None);
    }

    #[test]
    fn steps_say_what_they_do_on_what() {
        assert_eq!(LaunchStep::MapMemory(ByteSize::gib(2)).to_string(), "map 2 GiB of guest memory");
        assert_eq!(LaunchStep::AddEvent(4).to_string(), "add descriptor 4 to the event set");
        assert_eq!(LaunchStep::SetLimit("processes").to_string(), "set the limit on processes to 0");
    }
}
