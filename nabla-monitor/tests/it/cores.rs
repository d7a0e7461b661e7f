//! Where core dumps are written, and what is in them.

use crate::backend::{Backend, each_backend};
use nabla_monitor::{ByteSize, Console, GdbListener, Runtime};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::Path,
};

each_backend! {
    planted_files_are_neither_followed_nor_replaced_nor_waited_for,
    a_directory_that_is_replaced_after_the_start_is_still_the_first,
    memory_that_was_never_touched_is_not_walked,
    a_debugger_writes_cores_only_where_the_operator_said,
    a_debugger_that_talks_nonsense_is_followed_by_another,
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn planted_files_are_neither_followed_nor_replaced_nor_waited_for(backend: &Backend) {
    let (directory, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let victim = elsewhere.path().join("victim");
    fs::write(&victim, "precious").unwrap();
    let at = |name: &str| directory.path().join(name);
    // Names that a core could have on its way, as far as anybody can guess them.
    symlink(&victim, at(&format!(".core.probe.{}.tmp", std::process::id()))).unwrap();
    let runtime = Runtime::new();
    let guest = backend.build(&runtime, "spin").name("x").core_dumps(directory.path()).start().unwrap();
    let core = format!("core.x.{}", guest.pid());
    symlink(&victim, at(&core)).unwrap();
    mknodat(CWD, at(&format!("{core}.1")), FileType::Fifo, Mode::from_raw_mode(0o666), 0).unwrap();
    symlink(&victim, at(&format!(".{core}.tmp"))).unwrap();
    let before = names(directory.path());
    let written = guest.dump_core(directory.path()).unwrap();
    assert_eq!(written, at(&format!("{core}.2")));
    let metadata = fs::symlink_metadata(&written).unwrap();
    assert!(metadata.is_file() && metadata.permissions().mode() & 0o777 == 0o600, "{metadata:?}");
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
    fs::remove_file(written).unwrap();
    assert_eq!(names(directory.path()), before);
}

fn a_directory_that_is_replaced_after_the_start_is_still_the_first(backend: &Backend) {
    let parent = tempfile::tempdir().unwrap();
    let (first, moved) = (parent.path().join("cores"), parent.path().join("moved"));
    let other = tempfile::tempdir().unwrap();
    fs::create_dir(&first).unwrap();
    let runtime = Runtime::new();
    let guest = backend.build(&runtime, "abort").core_dumps(&first).console(Console::null());
    // The guest has not been started when the name changes hands, or has not ended.
    let guest = guest.start().unwrap();
    fs::rename(&first, &moved).unwrap();
    symlink(other.path(), &first).unwrap();
    let _ = guest.core().unwrap().unwrap();
    assert!(names(other.path()).is_empty());
    assert_eq!(names(&moved).len(), 1);
    fs::remove_file(&first).unwrap();
    fs::remove_dir_all(&moved).unwrap();
}

fn memory_that_was_never_touched_is_not_walked(backend: &Backend) {
    let directory = tempfile::tempdir().unwrap();
    let runtime = Runtime::new();
    // Read page by page, it would take minutes.
    let size = if backend.is_process() { ByteSize::gib(256) } else { ByteSize::gib(2) };
    let guest = backend.build(&runtime, "spin").memory(size).start().unwrap();
    let core = fs::metadata(guest.dump_core(directory.path()).unwrap()).unwrap();
    assert!(core.len() > size.as_u64() / 2 && core.blocks() * 512 < 4 << 20, "{core:?}");
    assert_eq!(guest.try_wait().unwrap(), None);
}

/// What a debugger does without a debugger.
struct Session(TcpStream);

impl Session {
    fn connect(address: &str) -> Self {
        Self(TcpStream::connect(address).unwrap())
    }

    fn send(&mut self, packet: &str) {
        let sum = packet.bytes().fold(0_u8, u8::wrapping_add);
        write!(self.0, "${packet}#{sum:02x}").unwrap();
    }

    /// The next packet, which is acknowledged.
    fn receive(&mut self) -> String {
        let mut packet = Vec::new();
        let mut byte = [0];
        while !matches!(packet[..], [.., b'#', _, _]) {
            self.0.read_exact(&mut byte).unwrap();
            match (byte[0], packet.as_slice()) {
                // So many more of the character before, plus 29.
                (count, [.., last, b'*']) => {
                    let last = *last;
                    packet.pop();
                    packet.extend((29..count).map(|_| last));
                }
                (b'$', _) | (_, [_, ..]) => packet.push(byte[0]),
                _ => {}
            }
        }
        // After the last packet nobody listens any more.
        let _ = self.0.write_all(b"+");
        String::from_utf8(packet[1..packet.len() - 3].to_vec()).unwrap()
    }

    fn ask(&mut self, packet: &str) -> String {
        self.send(packet);
        self.receive()
    }

    /// What a command of the monitor prints.
    fn monitor(&mut self, command: &str) -> String {
        let digits: String = command.bytes().map(|byte| format!("{byte:02x}")).collect();
        let mut text = Vec::new();
        let mut answer = self.ask(&format!("qRcmd,{digits}"));
        while let Some(digits) = answer.strip_prefix('O').filter(|rest| *rest != "K") {
            let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
            text.extend((0..digits.len()).step_by(2).map(byte));
            answer = self.receive();
        }
        assert_eq!(answer, "OK");
        String::from_utf8(text).unwrap()
    }
}

fn a_debugger_writes_cores_only_where_the_operator_said(backend: &Backend) {
    let (allowed, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let runtime = Runtime::new();
    for with_directory in [false, true] {
        let listener = GdbListener::tcp("127.0.0.1:0").unwrap();
        let address = listener.to_string();
        let mut guest = backend.build(&runtime, "spin").gdb(listener);
        if with_directory {
            guest = guest.core_dumps(allowed.path());
        }
        let guest = guest.start().unwrap();
        let mut session = Session::connect(&address);
        let said = session.monitor(&format!("core {}", other.path().display()));
        assert!(said.contains("only who starts the guest"), "{said}");
        let said = session.monitor("core");
        assert_eq!(said.contains("--dumpcore"), !with_directory, "{said}");
        assert_eq!(names(allowed.path()).len(), usize::from(with_directory));
        drop((session, guest));
    }
    assert!(names(other.path()).is_empty());
}

fn a_debugger_that_talks_nonsense_is_followed_by_another(backend: &Backend) {
    let runtime = Runtime::new();
    let listener = GdbListener::tcp("127.0.0.1:0").unwrap();
    let address = listener.to_string();
    let guest = backend.build(&runtime, "spin").gdb(listener).start().unwrap();
    for nonsense in ["$c#63$c#63", "$c#63$g#67", "$c#63$D#44$c#63", "$vCont;c#a8$s#73"] {
        let mut first = Session::connect(&address);
        let stop = first.ask("?");
        assert!(stop.starts_with(['S', 'T']), "{stop}");
        let start = first.ask("g")[128 + 128..][..16].to_owned();
        let address_of_start: String = (0..8).rev().map(|at| &start[2 * at..2 * at + 2]).collect();
        let byte = first.ask(&format!("m{address_of_start},1"));
        assert_eq!(first.ask(&format!("Z0,{address_of_start},1")), "OK");
        first.0.write_all(nonsense.as_bytes()).unwrap();
        first.0.shutdown(std::net::Shutdown::Write).unwrap();
        let _ = first.0.read_to_end(&mut Vec::new());
        // The breakpoint has gone with who set it.
        let mut second = Session::connect(&address);
        let stop = second.ask("?");
        assert!(stop.starts_with(['S', 'T']), "{stop} after {nonsense}");
        assert_eq!(second.ask(&format!("m{address_of_start},1")), byte, "after {nonsense}");
        assert_eq!(second.ask("D"), "OK");
    }
    assert_eq!(guest.try_wait().unwrap(), None);
}
