//! The launcher's file: everything that happens between exec and the guest's first instruction, computed here.
//!
//! The file is a small ELF executable: a page of machine code (see [`super::arch`]) and a table of system calls
//! with the results that they must have. When the last of them is done, the process consists of the guest, that
//! page and nothing else.

use super::{
    arch::{
        ANY_RESULT, ANY_STEP, HEADER_SIZE, Header, LAUNCH_FAILED, LAUNCHER_BASE, Reason, STEP_SIZE, Step,
        TABLE_BASE, TASK_SIZE, launcher_code,
    },
    filter::{self, FilterConfig},
    load,
};
use crate::{
    confine::{Identity, landlock},
    device::{self, Attached},
    elf_writer::{self, ProgramHeader},
    step::LaunchStep,
    sys::{
        raw::nr,
        signals::{self, SIGPIPE},
    },
};
use linux_raw_sys::{
    elf_uapi::{PF_R, PF_W, PF_X, PT_GNU_STACK},
    general::{
        _LINUX_CAPABILITY_VERSION_3, CLOCK_MONOTONIC, EPOLL_CTL_ADD, EPOLLIN, MADV_HUGEPAGE, MADV_NOHUGEPAGE,
        MAP_ANONYMOUS, MAP_FIXED, MAP_FIXED_NOREPLACE, MAP_NORESERVE, MAP_PRIVATE, PROT_EXEC, PROT_READ,
        PROT_WRITE, SIG_SETMASK, TFD_NONBLOCK,
    },
    prctl::{PR_SET_DUMPABLE, PR_SET_NAME, PR_SET_NO_NEW_PRIVS, PR_SET_PDEATHSIG},
    ptrace::SECCOMP_SET_MODE_FILTER,
};
use nabla_core::{
    ByteSize, CommandLine, Image,
    abi::{PAGE_SIZE, spt},
    elf::PT_LOAD,
    layout,
};
use rustix::io::Errno;
use std::io;

/// Descriptors of the process while it is launched. The first and the third are closed at the end, and so are the
/// image's and Landlock's.
pub const LAUNCH_FILE: i32 = 0;
/// The console: the only one of the first three that the guest has.
pub const CONSOLE: i32 = 1;
/// Where a failure is reported.
pub const REPORT: i32 = 2;
/// The first device; the others follow.
pub const FIRST_DEVICE: i32 = 3;

/// A system call that reads no more than this at once.
const READ_CHUNK: u64 = 1 << 30;

/// What the launcher is to do.
#[derive(Debug)]
pub struct LaunchConfig<'a> {
    pub image: &'a Image,
    /// Whether the image's file may be mapped executable; otherwise it is copied.
    pub map_image: bool,
    /// In the order of their descriptors, from [`FIRST_DEVICE`] on.
    pub devices: &'a [Attached],
    pub command_line: &'a CommandLine,
    /// Bytes of guest memory.
    pub memory: u64,
    pub exec_heap: bool,
    pub huge_pages: bool,
    pub dumpable: bool,
    /// Whether to close what was inherited. Otherwise exec has closed it.
    pub closes_inherited: bool,
    /// Whether the descriptor after the image's is a cgroup's `cgroup.procs`.
    pub joins_cgroup: bool,
    /// Shown as the process's name; cut to 15 bytes.
    pub name: &'a str,
    /// Whether a console without a reader kills the guest with SIGPIPE; otherwise its writes fail.
    pub die_on_broken_pipe: bool,
    pub landlock_abi: Option<u32>,
    pub identity: Option<Identity>,
    /// Whether a failure is reported as text, what the text starts with, and the exit status then.
    pub as_text: Option<(&'a str, u8)>,
}

/// The descriptors after the devices'.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptors {
    pub image: i32,
    pub epoll: i32,
    pub timer: i32,
    landlock: i32,
}

impl Descriptors {
    pub fn for_devices(count: usize) -> Self {
        let image = FIRST_DEVICE + i32::try_from(count).unwrap_or(i32::MAX - 16);
        Self { image, epoll: image + 1, timer: image + 2, landlock: image + 3 }
    }
}

/// The finished file.
#[derive(Debug)]
pub struct LaunchFile {
    pub bytes: Vec<u8>,
    /// What each step does, for the message when it fails.
    pub steps: Vec<LaunchStep>,
}

/// An argument of a step.
#[derive(Debug, Clone, Copy)]
enum Arg {
    Value(u64),
    /// Address of an offset into the data.
    Data(usize),
    /// The same as an offset into the file.
    FileOffset(usize),
}

impl From<u64> for Arg {
    fn from(value: u64) -> Self {
        Self::Value(value)
    }
}

impl From<u32> for Arg {
    fn from(value: u32) -> Self {
        Self::Value(value.into())
    }
}

impl From<i32> for Arg {
    /// Descriptors; a negative one is sign-extended, as C does it.
    fn from(value: i32) -> Self {
        Self::Value(i64::from(value).cast_unsigned())
    }
}

#[derive(Debug)]
struct Builder {
    calls: Vec<(u32, [Arg; 6], u64)>,
    steps: Vec<LaunchStep>,
    data: Vec<u8>,
}

impl Builder {
    /// Room for what nearly every guest needs: growing touches fresh memory, which costs more than the rest of this.
    fn new() -> Self {
        Self {
            calls: Vec::with_capacity(48),
            steps: Vec::with_capacity(48),
            data: Vec::with_capacity(4 << 10),
        }
    }

    /// Adds data and returns its offset, a multiple of 8.
    fn data(&mut self, bytes: &[u8]) -> usize {
        self.data.resize(self.data.len().next_multiple_of(8), 0);
        let offset = self.data.len();
        self.data.extend_from_slice(bytes);
        offset
    }

    /// Adds data for a call to point at.
    fn pointer(&mut self, bytes: &[u8]) -> Arg {
        Arg::Data(self.data(bytes))
    }

    fn call<const N: usize>(&mut self, number: u32, args: [Arg; N], expected: u64, step: LaunchStep) {
        let mut all = [Arg::Value(0); 6];
        all[..N].copy_from_slice(&args);
        self.calls.push((number, all, expected));
        self.steps.push(step);
    }
}

/// Builds the launcher's file.
///
/// # Errors
///
/// When the filter cannot be built, which means too many devices for a BPF program.
pub fn build(config: &LaunchConfig<'_>) -> Result<LaunchFile, seccompiler::BackendError> {
    let fds = Descriptors::for_devices(config.devices.len());
    let mut b = Builder::new();
    start(&mut b, config, fds);
    memory(&mut b, config, fds);
    let (filter, filter_words) = boot_area(&mut b, config, fds)?;
    events(&mut b, config, fds);
    lock_down(&mut b, config, fds);
    let header = Header {
        steps: b.calls.len() as u64,
        text: u64::from(config.as_text.is_some()),
        unmap_address: config.memory,
        unmap_length: TASK_SIZE - config.memory,
        filter,
        filter_words,
        stack: config.memory - 8,
        argument: spt::BOOT_INFO_BASE,
        entry: config.image.entry(),
        failure_status: config.as_text.map_or(LAUNCH_FAILED, |(_, status)| status).into(),
        // Known when the file is assembled.
        reasons: 0,
        reason_count: 0,
    };
    Ok(assemble(b, header, config.as_text.map(|(prefix, _)| prefix)))
}

fn start(b: &mut Builder, config: &LaunchConfig<'_>, fds: Descriptors) {
    let first_unused = Arg::from(fds.image + 1);
    if config.joins_cgroup {
        let zero = b.pointer(b"0");
        b.call(nr::WRITE, [first_unused, zero, 1.into()], 1, LaunchStep::EnterCgroup);
    }
    if config.closes_inherited {
        b.call(nr::CLOSE_RANGE, [first_unused, u32::MAX.into(), 0.into()], 0, LaunchStep::CloseInherited);
    } else if config.joins_cgroup {
        b.call(nr::CLOSE, [first_unused], 0, LaunchStep::CloseInherited);
    }
    let mut name = [0_u8; 16];
    let cut = config.name.floor_char_boundary(15);
    name[..cut].copy_from_slice(&config.name.as_bytes()[..cut]);
    let name = b.pointer(&name);
    b.call(nr::PRCTL, [PR_SET_NAME.into(), name], 0, LaunchStep::NameProcess);
    // What the supervisor's death would have meant until now.
    b.call(nr::PRCTL, [PR_SET_PDEATHSIG.into(), 0.into()], 0, LaunchStep::ClearParentDeathSignal);
    // struct sigaction of the kernel: handler, flags, restorer, mask; the default.
    let action = b.pointer(&[0; 32]);
    b.call(nr::RT_SIGACTION, [SIGPIPE.into(), action, 0.into(), 8.into()], 0, LaunchStep::SetSigpipe);
    // Blocked and not ignored: an ignored signal still stops a traced process each time.
    let mask = if config.die_on_broken_pipe { 0_u64 } else { signals::set([SIGPIPE]) };
    let mask = b.pointer(&mask.to_le_bytes());
    b.call(nr::RT_SIGPROCMASK, [SIG_SETMASK.into(), mask, 0.into(), 8.into()], 0, LaunchStep::SetSignalMask);
}

fn memory(b: &mut Builder, config: &LaunchConfig<'_>, fds: Descriptors) {
    let start = spt::BOOT_INFO_BASE;
    let length = config.memory - start;
    let heap = PROT_READ | PROT_WRITE | if config.exec_heap { PROT_EXEC } else { 0 };
    let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE;
    let args = [start.into(), length.into(), heap.into(), flags.into(), Arg::from(-1), 0.into()];
    b.call(nr::MMAP, args, start, LaunchStep::MapMemory(ByteSize::bytes(config.memory)));
    // Where the host's policy is `always`, one touched page would cost 2 MiB: so a guest without huge pages says
    // so. A kernel without them answers EINVAL, which is as good.
    let (advice, expected) =
        if config.huge_pages { (MADV_HUGEPAGE, 0) } else { (MADV_NOHUGEPAGE, ANY_RESULT) };
    b.call(nr::MADVISE, [start.into(), length.into(), advice.into()], expected, LaunchStep::SetHugePages);

    let plan = load::plan(config.image, config.map_image, config.exec_heap);
    for piece in &plan.mapped {
        let address = piece.address;
        let args = [
            address.into(),
            piece.length.into(),
            prot(piece.permissions).into(),
            (MAP_PRIVATE | MAP_FIXED).into(),
            fds.image.into(),
            piece.offset.into(),
        ];
        b.call(nr::MMAP, args, address, LaunchStep::MapSegment(address));
    }
    for piece in &plan.copied {
        let mut done = 0;
        while done < piece.length {
            let (address, length) = (piece.address + done, READ_CHUNK.min(piece.length - done));
            let args = [fds.image.into(), address.into(), length.into(), (piece.offset + done).into()];
            b.call(nr::PREAD64, args, length, LaunchStep::ReadSegment(address));
            done += length;
        }
    }
    for range in &plan.protected {
        let (address, length) = (range.pages.start, range.pages.end - range.pages.start);
        let args = [address.into(), length.into(), prot(range.permissions).into()];
        b.call(nr::MPROTECT, args, 0, LaunchStep::ProtectPages(address));
    }
}

const fn prot(permissions: nabla_core::Permissions) -> u32 {
    (if permissions.read { PROT_READ } else { 0 })
        | (if permissions.write { PROT_WRITE } else { 0 })
        | (if permissions.execute { PROT_EXEC } else { 0 })
}

/// Copies boot info and filter into guest memory. Returns where the filter is and how many words it has.
fn boot_area(
    b: &mut Builder,
    config: &LaunchConfig<'_>,
    fds: Descriptors,
) -> Result<(u64, u64), seccompiler::BackendError> {
    let devices = config.devices.iter().zip(FIRST_DEVICE..).map(|(device, fd)| (fd, device.access()));
    let program =
        filter::build(&FilterConfig { epollfd: fds.epoll, timerfd: fds.timer, devices: devices.collect() })?;
    let number = |position| FIRST_DEVICE + i32::try_from(position).unwrap_or(i32::MAX - FIRST_DEVICE);
    let manifest = device::fill_in(config.image.manifest(), config.devices, number);
    let area = layout::spt::boot_area(
        config.memory,
        config.image.end(),
        &manifest,
        config.command_line,
        fds.epoll,
        fds.timer,
    );
    let mut bytes = area.bytes;
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    let filter_offset = bytes.len();
    let filter_address = area.address + filter_offset as u64;
    // struct sock_fprog: a 16-bit length, padding, a pointer to what follows it here.
    bytes.extend_from_slice(&(program.len() as u64).to_le_bytes());
    bytes.extend_from_slice(&(filter_address + 16).to_le_bytes());
    for instruction in &program {
        bytes.extend_from_slice(&instruction.code.to_le_bytes());
        bytes.extend_from_slice(&[instruction.jt, instruction.jf]);
        bytes.extend_from_slice(&instruction.k.to_le_bytes());
    }
    let filter_words = (bytes.len() - filter_offset) as u64 / 8;
    let length = bytes.len() as u64;
    let offset = b.data(&bytes);
    let args = [LAUNCH_FILE.into(), area.address.into(), length.into(), Arg::FileOffset(offset)];
    b.call(nr::PREAD64, args, length, LaunchStep::CopyBootInfo);
    Ok((filter_address, filter_words))
}

/// The epoll set with the timer and every network device.
fn events(b: &mut Builder, config: &LaunchConfig<'_>, fds: Descriptors) {
    let number = |fd: i32| u64::from(fd.cast_unsigned());
    b.call(nr::EPOLL_CREATE1, [0.into()], number(fds.epoll), LaunchStep::CreateEventSet);
    let args = [CLOCK_MONOTONIC.into(), TFD_NONBLOCK.into()];
    b.call(nr::TIMERFD_CREATE, args, number(fds.timer), LaunchStep::CreateTimer);
    let frames = config
        .devices
        .iter()
        .zip(FIRST_DEVICE..)
        .filter_map(|(device, fd)| device.access().is_frames().then_some((fd, device.info.index as u64)));
    for (fd, data) in frames.chain([(fds.timer, spt::TIMER_EVENT)]) {
        // struct epoll_event is packed on x86-64.
        let mut event = [0_u8; 12];
        event[..4].copy_from_slice(&EPOLLIN.to_le_bytes());
        event[4..].copy_from_slice(&data.to_le_bytes());
        let event = b.pointer(&event);
        b.call(
            nr::EPOLL_CTL,
            [fds.epoll.into(), EPOLL_CTL_ADD.into(), fd.into(), event],
            0,
            LaunchStep::AddEvent(fd),
        );
    }
}

fn lock_down(b: &mut Builder, config: &LaunchConfig<'_>, fds: Descriptors) {
    if let Some(Identity { uid, gid }) = config.identity {
        let (uid, gid) = (Arg::from(uid), Arg::from(gid));
        b.call(nr::SETGROUPS, [0.into(), 0.into()], 0, LaunchStep::DropGroups);
        b.call(nr::SETRESGID, [gid, gid, gid], 0, LaunchStep::SetGroup);
        b.call(nr::SETRESUID, [uid, uid, uid], 0, LaunchStep::SetUser);
    }
    b.call(nr::PRCTL, [PR_SET_NO_NEW_PRIVS.into(), 1.into()], 0, LaunchStep::SetNoNewPrivileges);
    if let Some(abi) = config.landlock_abi {
        let attributes = landlock::deny_all(abi);
        let size = attributes.len() as u64;
        let attributes = b.pointer(&attributes);
        let landlock = Arg::from(fds.landlock);
        let expected = u64::from(fds.landlock.cast_unsigned());
        b.call(
            nr::LANDLOCK_CREATE_RULESET,
            [attributes, size.into(), 0.into()],
            expected,
            LaunchStep::CreateLandlockDomain,
        );
        b.call(nr::LANDLOCK_RESTRICT_SELF, [landlock, 0.into()], 0, LaunchStep::EnterLandlockDomain);
    }
    // struct __user_cap_header_struct: version 3, this process; then no capability in any set.
    let header = b.pointer(&[_LINUX_CAPABILITY_VERSION_3.to_le_bytes(), [0; 4]].concat());
    let none = b.pointer(&[0; 24]);
    b.call(nr::CAPSET, [header, none], 0, LaunchStep::DropCapabilities);
    b.call(
        nr::PRCTL,
        [PR_SET_DUMPABLE.into(), u64::from(config.dumpable).into()],
        0,
        LaunchStep::SetDumpable,
    );
    let zero = b.pointer(&[0; 16]);
    for (resource, what) in crate::confine::RLIMITS_ZERO {
        b.call(nr::PRLIMIT64, [0.into(), resource.into(), zero, 0.into()], 0, LaunchStep::SetLimit(what));
    }
    // The filter is loaded when nothing can be reported any more, so it is tried here, with a pointer to nothing.
    let fault = (-i64::from(Errno::FAULT.raw_os_error())).cast_unsigned();
    b.call(nr::SECCOMP, [SECCOMP_SET_MODE_FILTER.into(), 0.into(), 0.into()], fault, LaunchStep::ProbeFilter);
    b.call(nr::CLOSE, [LAUNCH_FILE.into()], 0, LaunchStep::CloseLauncherFiles);
    b.call(nr::CLOSE, [fds.image.into()], 0, LaunchStep::CloseLauncherFiles);
    if config.landlock_abi.is_some() {
        b.call(nr::CLOSE, [fds.landlock.into()], 0, LaunchStep::CloseLauncherFiles);
    }
    // One byte tells the host program that the guest is about to run; 16 would be a failure, and none means that
    // the launcher was killed.
    if config.as_text.is_none() {
        let byte = b.pointer(&[0]);
        b.call(nr::WRITE, [REPORT.into(), byte, 1.into()], 1, LaunchStep::Report);
    }
    b.call(nr::CLOSE, [REPORT.into()], 0, LaunchStep::CloseLauncherFiles);
}

/// Puts the pieces together: ELF header, code, table, data.
fn assemble(b: Builder, mut header: Header, text_prefix: Option<&str>) -> LaunchFile {
    const TABLE_OFFSET: usize = 0x1000;
    const CODE_OFFSET: usize = 0x100;
    let Builder { calls, steps, mut data } = b;
    let messages: Vec<(usize, usize)> = match text_prefix {
        None => vec![(0, 0); calls.len()],
        Some(prefix) => steps
            .iter()
            .map(|step| {
                let call = step.call().map(|call| format!(" ({call})")).unwrap_or_default();
                append(&mut data, &format!("{prefix}cannot {step}{call}: "))
            })
            .collect(),
    };
    let reasons = if text_prefix.is_some() { reasons(&steps, &mut data) } else { Vec::new() };
    let data_offset = HEADER_SIZE + calls.len() * STEP_SIZE;
    let address = |offset: usize| TABLE_BASE + (data_offset + offset) as u64;
    data.resize(data.len().next_multiple_of(8), 0);
    header.reasons = address(data.len());
    header.reason_count = reasons.len() as u64;
    for (errno, step, (offset, length)) in reasons {
        let reason = Reason { errno, step, text: address(offset), length: length as u64 };
        data.extend(reason.words().iter().flat_map(|word| word.to_le_bytes()));
    }
    let mut table: Vec<u64> = header.words().to_vec();
    for (&(number, args, expected), (message, length)) in calls.iter().zip(messages) {
        let args = args.map(|arg| match arg {
            Arg::Value(value) => value,
            Arg::Data(offset) => address(offset),
            Arg::FileOffset(offset) => (TABLE_OFFSET + data_offset + offset) as u64,
        });
        let step = Step {
            number: number.into(),
            args,
            expected,
            message: address(message),
            message_length: length as u64,
        };
        table.extend_from_slice(&step.words());
    }
    let table_size = (data_offset + data.len()) as u64;
    let mut bytes = elf_header(LAUNCHER_BASE + CODE_OFFSET as u64, table_size);
    bytes.resize(CODE_OFFSET, 0);
    bytes.extend_from_slice(launcher_code());
    debug_assert!(bytes.len() <= TABLE_OFFSET, "the launcher's code is larger than its page");
    bytes.resize(TABLE_OFFSET, 0);
    bytes.extend(table.iter().flat_map(|word| word.to_le_bytes()));
    bytes.extend_from_slice(&data);
    LaunchFile { bytes, steps }
}

/// Adds a text to the data, and returns its offset and length.
fn append(data: &mut Vec<u8>, text: &str) -> (usize, usize) {
    let start = data.len();
    data.extend_from_slice(text.as_bytes());
    (start, text.len())
}

/// Texts for the errnos that a launch may end with: with what to do about it, where that is known for a step. The launcher
/// has no library to ask any more.
fn reasons(steps: &[LaunchStep], data: &mut Vec<u8>) -> Vec<(u64, u64, (usize, usize))> {
    const LIKELY: [Errno; 20] = [
        Errno::PERM,
        Errno::NOENT,
        Errno::IO,
        Errno::BADF,
        Errno::AGAIN,
        Errno::NOMEM,
        Errno::ACCESS,
        Errno::FAULT,
        Errno::BUSY,
        Errno::EXIST,
        Errno::NODEV,
        Errno::INVAL,
        Errno::NFILE,
        Errno::MFILE,
        Errno::NOSPC,
        Errno::NOSYS,
        Errno::LOOP,
        Errno::OVERFLOW,
        Errno::OPNOTSUPP,
        Errno::STALE,
    ];
    let number = |errno: Errno| u64::from(errno.raw_os_error().cast_unsigned());
    let mut reasons = Vec::new();
    // The steps whose failure is likely for a reason that the user can do something about.
    let advised = (0_u64..).zip(steps).filter(|(_, step)| matches!(step, LaunchStep::MapMemory(_)));
    for (index, step) in advised {
        for errno in [Errno::NOMEM, Errno::EXIST] {
            let reason = io::Error::from(errno);
            if let Some(advice) = step.advice(&reason) {
                reasons.push((number(errno), index, append(data, &format!("{reason}; {advice}\n"))));
            }
        }
    }
    for errno in LIKELY {
        reasons.push((number(errno), ANY_STEP, append(data, &format!("{}\n", io::Error::from(errno)))));
    }
    let odd = append(data, "the system call returned something unexpected (has the image changed?)\n");
    reasons.push((0, ANY_STEP, odd));
    reasons
}

/// ELF header and program headers: the code's page, the table, and a stack that is not executable.
fn elf_header(entry: u64, table_size: u64) -> Vec<u8> {
    let load = |flags, offset, address, size| ProgramHeader {
        kind: PT_LOAD,
        flags,
        offset,
        address,
        size,
        align: PAGE_SIZE,
    };
    elf_writer::executable(
        entry,
        &[
            load(PF_R | PF_X, 0, LAUNCHER_BASE, PAGE_SIZE),
            load(PF_R, PAGE_SIZE, TABLE_BASE, table_size),
            ProgramHeader { kind: PT_GNU_STACK, align: 16, ..load(PF_R | PF_W, 0, 0, 0) },
        ],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_fits_into_its_page() {
        assert!(0x100 + launcher_code().len() <= 0x1000, "{}", launcher_code().len());
    }

    #[test]
    fn descriptors_follow_the_devices() {
        let fds = Descriptors::for_devices(2);
        assert_eq!((fds.image, fds.epoll, fds.timer, fds.landlock), (5, 6, 7, 8));
    }
}
