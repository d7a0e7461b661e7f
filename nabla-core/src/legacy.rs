//! Images from before the ABI note (until mid-2019): what their code tells.
//!
//! The kinds without a note cannot be told apart with certainty. But Solo5's bindings were always linked as one
//! object, so that every guest holds every hypercall of its kind, used or not, and each kind makes some call that
//! the others do not: a kind is the guess when all of its tell-tales are there, and each of them is a reason that
//! can be shown. A caller who knows better names the ABI.
//!
//! Source: the code that gcc makes (-Os to -O3) of the bindings of Solo5 0.2.2, 0.3.0, 0.4.1 and 120848b, and of
//! IBM's fork of 2018 at 369a371.

use crate::{
    elf::{Elf, Segment},
    source::{ReadAt, SourceError, read_vec},
    target::Abi,
};
use alloc::{format, string::String, vec::Vec};
use core::ops::Range;

/// Most bytes of code that are searched.
const MAX_CODE: u64 = 32 << 20;
/// The entry point belongs to the bindings, so that they are searched first: so many bytes before and after it.
const NEAR_ENTRY: u64 = 256 << 10;
/// Bytes that are read at a time.
const CHUNK: u64 = 256 << 10;
/// Longest instruction sequence in bytes that is looked at.
const WINDOW: usize = 32;

/// An instruction sequence that tells something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sign {
    /// `out` to port 0x502.
    Out502,
    /// `out` to port 0x50a.
    Out50a,
    /// `out` to port 0x499.
    Out499,
    /// `out` to port 0x509.
    Out509,
    /// A call through the pointer at 0x10000, or a load of it.
    Pointer,
    /// `ppoll` with null for both arguments of the signal mask, which no libc does.
    Ppoll,
    /// `exit_group` with an endless loop after it.
    Exit,
}

/// What must be there for a kind to be the guess: each sign, so many times, and what it is in words.
type TellTales = &'static [(Sign, u32, &'static str)];

const KINDS: [(Abi, TellTales); 4] = [
    // Port 0x502 tells nothing here: it is a block call of ukvm 0.2, and the console later.
    (
        Abi::Ukvm,
        &[
            (Sign::Out499, 1, "an OUT to port 0x499, the console of ukvm 0.2"),
            (Sign::Out509, 1, "an OUT to port 0x509, poll of ukvm 0.2"),
        ],
    ),
    // From hvt with a note on, halt is 8, and nothing is 10.
    (
        Abi::HvtWithoutNote,
        &[
            (Sign::Out502, 1, "an OUT to port 0x502, the console of hvt"),
            (Sign::Out50a, 1, "an OUT to port 0x50a, halt of hvt without a note"),
        ],
    ),
    // Ten calls are in every image; a single one could be a constant that means something else.
    (Abi::Nabla2018, &[(Sign::Pointer, 3, "calls through the function pointer at 0x10000")]),
    (
        Abi::SptWithoutNote,
        &[
            (Sign::Ppoll, 1, "a ppoll system call without a signal mask, the wait of spt without a note"),
            (Sign::Exit, 1, "an exit_group system call with an endless loop after it, the exit of spt"),
        ],
    ),
];
const SIGNS: usize = Sign::Exit as usize + 1;

/// How often each sign was found, and where first.
#[derive(Default)]
struct Found {
    count: [u32; SIGNS],
    first: [u64; SIGNS],
}

impl Found {
    fn add(&mut self, sign: Sign, address: u64) {
        let i = sign as usize;
        if self.count[i] == 0 {
            self.first[i] = address;
        }
        self.count[i] = self.count[i].saturating_add(1);
    }

    fn guess(&self) -> Option<(Abi, Vec<String>)> {
        let complete =
            |tell_tales: TellTales| tell_tales.iter().all(|&(s, n, _)| self.count[s as usize] >= n);
        let (abi, tell_tales) = KINDS.into_iter().find(|&(_, tell_tales)| complete(tell_tales))?;
        let reason = |&(sign, _, meaning): &(Sign, u32, &str)| {
            format!("{meaning}, first at {:#x}", self.first[sign as usize])
        };
        Some((abi, tell_tales.iter().map(reason).collect()))
    }
}

/// The ABI that the code of an image without a note speaks, and what tells it; `None` when nothing does.
///
/// The code around the entry point is searched first, and then all code up to 32 MiB.
///
/// # Errors
///
/// When the code cannot be read.
pub fn guess<S: ReadAt + ?Sized>(source: &S, elf: &Elf) -> Result<Option<(Abi, Vec<String>)>, SourceError> {
    let near = elf.entry.saturating_sub(NEAR_ENTRY)..elf.entry.saturating_add(NEAR_ENTRY);
    for addresses in [near, 0..u64::MAX] {
        let mut found = Found::default();
        let mut budget = MAX_CODE;
        for segment in elf.segments.iter().filter(|segment| segment.permissions.execute) {
            let range = in_file(segment, &addresses);
            let length = (range.end - range.start).min(budget);
            budget -= length;
            search(source, segment, range.start..range.start + length, &mut found)?;
        }
        if let Some(guess) = found.guess() {
            return Ok(Some(guess));
        }
    }
    Ok(None)
}

/// The part of `segment` that comes from the file and lies in `addresses`, as offsets into the segment.
fn in_file(segment: &Segment, addresses: &Range<u64>) -> Range<u64> {
    let clip = |address: u64| address.saturating_sub(segment.address).min(segment.file_size);
    clip(addresses.start)..clip(addresses.end)
}

/// Notes every sign in `offsets` of `segment`.
fn search<S: ReadAt + ?Sized>(
    source: &S,
    segment: &Segment,
    offsets: Range<u64>,
    found: &mut Found,
) -> Result<(), SourceError> {
    let mut start = offsets.start;
    while start < offsets.end {
        let fresh = CHUNK.min(offsets.end - start);
        let with_overlap = (fresh + WINDOW as u64).min(offsets.end - start);
        let code = read_vec(source, segment.file_offset + start, usize::try_from(with_overlap).unwrap_or(0))?;
        for (i, at) in (0..fresh).zip(0_usize..) {
            let code = &code[at..code.len().min(at + WINDOW)];
            if let Some(sign) = sign_at(code) {
                found.add(sign, segment.address + start + i);
            }
        }
        start += fresh;
    }
    Ok(())
}

/// The sign that starts with the first byte of `code`.
fn sign_at(code: &[u8]) -> Option<Sign> {
    match code {
        // mov edx, N; or what clang makes of it: mov dx, N. Then out dx, eax.
        [0xba, low, high, 0, 0, rest @ ..] | [0x66, 0xba, low, high, rest @ ..] => {
            let sign = match u16::from_le_bytes([*low, *high]) {
                0x499 => Sign::Out499,
                0x502 => Sign::Out502,
                0x509 => Sign::Out509,
                0x50a => Sign::Out50a,
                _ => return None,
            };
            behind_moves(rest)?.starts_with(&[0xef]).then_some(sign)
        }
        // call [0x10000], jmp [0x10000]
        [0xff, 0x14 | 0x24, 0x25, 0, 0, 1, 0, ..] => Some(Sign::Pointer),
        // mov any 64-bit register, [0x10000]
        [0x48 | 0x4c, 0x8b, modrm, 0x25, 0, 0, 1, 0, ..] if modrm & 0xc7 == 0x04 => Some(Sign::Pointer),
        // mov eax, 231; syscall; jmp to itself, which compilers may align
        [0xb8, 0xe7, 0, 0, 0, rest @ ..] => {
            let looped = behind_moves(rest)?.strip_prefix(&SYSCALL)?;
            contains(&looped[..looped.len().min(18)], &[0xeb, 0xfe]).then_some(Sign::Exit)
        }
        // r10d = 0 and r8d = 0, eax = 271, in any order; then syscall
        [0x45, 0x31, 0xd2 | 0xc0, ..] | [0x41, 0xba | 0xb8, 0, 0, 0, 0, ..] | [0xb8, 0x0f, 1, 0, 0, ..] => {
            let before = code.windows(2).position(|w| w == SYSCALL).map(|end| &code[..end])?;
            let any = |forms: [&[u8]; 2]| forms.iter().any(|form| contains(before, form));
            let r10 = any([&[0x45, 0x31, 0xd2], &[0x41, 0xba, 0, 0, 0, 0]]);
            let r8 = any([&[0x45, 0x31, 0xc0], &[0x41, 0xb8, 0, 0, 0, 0]]);
            (r10 && r8 && contains(before, &[0xb8, 0x0f, 1, 0, 0])).then_some(Sign::Ppoll)
        }
        _ => None,
    }
}

const SYSCALL: [u8; 2] = [0x0f, 0x05];

fn contains(code: &[u8], part: &[u8]) -> bool {
    code.windows(part.len()).any(|window| window == part)
}

/// What comes after at most four instructions that move a register or the stack pointer with an offset (`mov`,
/// `lea`): compilers put the other operand's between a constant and the instruction that uses it.
fn behind_moves(mut code: &[u8]) -> Option<&[u8]> {
    for _ in 0..4 {
        let (opcode, rest) = match code {
            [0x40..=0x4f, opcode, rest @ ..] | [opcode, rest @ ..] => (*opcode, rest),
            [] => return None,
        };
        if !matches!(opcode, 0x89 | 0x8b | 0x8d) {
            break;
        }
        let &modrm = rest.first()?;
        let sib = usize::from(modrm >> 6 != 3 && modrm & 7 == 4);
        let displacement = match modrm >> 6 {
            0 if modrm & 7 == 5 => 4,
            1 => 1,
            2 => 4,
            _ => 0,
        };
        code = rest.get(1 + sib + displacement..)?;
    }
    Some(code)
}
