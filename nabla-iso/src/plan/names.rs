//! The names that files have for readers without Rock Ridge: short, from a small set of characters, and distinct.
//!
//! A name depends on nothing but the file's own name, and on whether another file of its directory would have the same.

use crate::format::joliet;
use hashbrown::HashTable;
use std::{
    collections::HashSet,
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
    ops::Range,
};

/// A file that needs a name.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// Its own name.
    pub name: &'a [u8],
    pub directory: bool,
    /// What makes it differ from others of the same name: the [`hash`] of its name, or of its path.
    pub key: u64,
    /// The order of those with the same name.
    pub rank: u32,
}

/// How names are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// ECMA-119, level 2: 30 characters of A to Z, 0 to 9 and _, and a dot in files' names (7.5.1).
    Primary,
    /// 64 characters of UCS-2.
    Joliet,
}

/// Characters of a file's name and extension together, without the dot (ECMA-119, 7.5.1).
const FILE_MAX: usize = 30;
/// Characters of a directory's name (7.6.3).
const DIRECTORY_MAX: usize = 31;
/// Characters of an extension that are kept.
const EXTENSION_MAX: usize = 12;
/// What follows a name that another file has, too: a separator and digits.
const SUFFIX: usize = 8;

/// Gives every candidate an identifier, in `heap`; none is there twice.
pub fn assign(scheme: Scheme, candidates: &[Candidate<'_>], heap: &mut Vec<u8>) -> Vec<Range<usize>> {
    let hasher = BuildHasherDefault::<DefaultHasher>::default();
    let mut identifiers: Vec<Range<usize>> = Vec::with_capacity(candidates.len());
    let mut seen: HashTable<usize> = HashTable::with_capacity(candidates.len());
    let mut ambiguous = Vec::new();
    for (index, candidate) in candidates.iter().enumerate() {
        let start = heap.len();
        scheme.natural(candidate, None, heap);
        identifiers.push(start..heap.len());
        let heap = &heap[..];
        let hash = |index: usize, identifiers: &[Range<usize>]| {
            hasher.hash_one(scheme.comparable(&heap[identifiers[index].clone()]))
        };
        let own = scheme.comparable(&heap[start..]);
        let entry = seen.entry(
            hasher.hash_one(own),
            |&other| scheme.comparable(&heap[identifiers[other].clone()]) == own,
            |&other| hash(other, &identifiers),
        );
        match entry {
            hashbrown::hash_table::Entry::Vacant(vacant) => {
                vacant.insert(index);
            }
            hashbrown::hash_table::Entry::Occupied(other) => ambiguous.extend([*other.get(), index]),
        }
    }
    if ambiguous.is_empty() {
        return identifiers;
    }
    ambiguous.sort_unstable();
    ambiguous.dedup();
    // Which of two gets the next best name, should that ever be needed, must not depend on the order in which a
    // directory was read.
    ambiguous.sort_by_key(|&index| (candidates[index].name, candidates[index].rank));
    let mut taken: HashSet<Vec<u8>> =
        identifiers.iter().map(|range| scheme.comparable(&heap[range.clone()]).to_vec()).collect();
    for index in ambiguous {
        for attempt in 0.. {
            let start = heap.len();
            scheme.natural(&candidates[index], Some(attempt), heap);
            if taken.insert(scheme.comparable(&heap[start..]).to_vec()) {
                identifiers[index] = start..heap.len();
                break;
            }
            heap.truncate(start);
        }
    }
    identifiers
}

impl Scheme {
    /// The part of an identifier by which files are told apart and sorted (ECMA-119, 9.3).
    pub fn comparable(self, identifier: &[u8]) -> &[u8] {
        match self {
            Self::Primary => {
                let name = identifier.strip_suffix(b";1").unwrap_or(identifier);
                name.strip_suffix(b".").unwrap_or(name)
            }
            Self::Joliet => identifier,
        }
    }

    /// Appends the identifier that a file would have without a collision, or that of an attempt to avoid one.
    fn natural(self, candidate: &Candidate<'_>, attempt: Option<u32>, heap: &mut Vec<u8>) {
        match self {
            Self::Primary => primary(candidate, attempt, heap),
            Self::Joliet => in_ucs2(candidate, attempt, heap),
        }
    }
}

fn primary(candidate: &Candidate<'_>, attempt: Option<u32>, heap: &mut Vec<u8>) {
    let Candidate { name, directory, .. } = *candidate;
    let allowed = |byte: &u8| match byte.to_ascii_uppercase() {
        byte @ (b'A'..=b'Z' | b'0'..=b'9') => byte,
        _ => b'_',
    };
    // A dot in front is no separator.
    let dot = name.iter().rposition(|&byte| byte == b'.').filter(|&dot| dot > 0 && !directory);
    let (stem, extension) = dot.map_or((name, &b""[..]), |dot| (&name[..dot], &name[dot + 1..]));
    let extension = &extension[..extension.len().min(EXTENSION_MAX)];
    let most = if directory { DIRECTORY_MAX } else { FILE_MAX - extension.len() };
    let most = if attempt.is_some() { most - SUFFIX } else { most };
    heap.extend(stem[..stem.len().min(most)].iter().map(allowed));
    if let Some(attempt) = attempt {
        heap.push(b'_');
        heap.extend(digits(candidate.key, attempt));
    }
    if !directory {
        heap.push(b'.');
        heap.extend(extension.iter().map(allowed));
        heap.extend(b";1");
    }
}

fn in_ucs2(candidate: &Candidate<'_>, attempt: Option<u32>, heap: &mut Vec<u8>) {
    let mut put = |unit: u16| {
        heap.extend(if joliet::is_allowed(unit) { unit } else { u16::from(b'_') }.to_be_bytes());
    };
    let units = candidate.name.utf8_chunks().flat_map(|chunk| {
        let bad = usize::from(!chunk.invalid().is_empty());
        let valid = chunk.valid().chars().map(|c| u16::try_from(u32::from(c)).unwrap_or(0));
        valid.chain(core::iter::repeat_n(0, bad))
    });
    let most = if attempt.is_some() { joliet::NAME_MAX - SUFFIX } else { joliet::NAME_MAX };
    units.take(most).for_each(&mut put);
    if let Some(attempt) = attempt {
        put(b'~'.into());
        digits(candidate.key, attempt).into_iter().map(u16::from).for_each(put);
    }
}

/// Where a [`hash`] begins.
pub const HASH: u64 = 0xcbf2_9ce4_8422_2325;

/// Goes on with a hash, FNV-1a: it is the same on every machine, and in every later version.
pub fn hash(start: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(start, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Seven digits in base 36 that a key leads to.
fn digits(key: u64, attempt: u32) -> [u8; SUFFIX - 1] {
    let mut hash = if attempt == 0 { key } else { hash(key, &attempt.to_le_bytes()) };
    [0; SUFFIX - 1].map(|_: u8| {
        let digit = (hash % 36).to_le_bytes()[0];
        hash /= 36;
        if digit < 10 { b'0' + digit } else { b'A' + digit - 10 }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn names(scheme: Scheme, names: &[&str]) -> Vec<String> {
        let candidates: Vec<_> = names
            .iter()
            .map(|name| Candidate {
                name: name.trim_end_matches('/').as_bytes(),
                directory: name.ends_with('/'),
                key: hash(HASH, name.as_bytes()),
                rank: 0,
            })
            .collect();
        let mut heap = Vec::new();
        let ranges = assign(scheme, &candidates, &mut heap);
        ranges
            .into_iter()
            .map(|range| match scheme {
                Scheme::Primary => String::from_utf8(heap[range].to_vec()).unwrap(),
                Scheme::Joliet => {
                    let units: Vec<_> =
                        heap[range].chunks(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
                    String::from_utf16(&units).unwrap()
                }
            })
            .collect()
    }

    #[test]
    fn names_alone_are_close_to_what_they_were() {
        let given = ["readme.txt", "a/", "Makefile", ".bashrc", "a.tar.gz", "x.d/", "-", "weird."];
        let expected =
            ["README.TXT;1", "A", "MAKEFILE.;1", "_BASHRC.;1", "A_TAR.GZ;1", "X_D", "_.;1", "WEIRD.;1"];
        assert_eq!(names(Scheme::Primary, &given), expected);
    }

    #[test]
    fn identifiers_keep_to_their_lengths() {
        let long = "x".repeat(255);
        let extension = format!("{long}.{long}");
        for name in names(Scheme::Primary, &[&long, &format!("{long}/"), &extension, &format!("y.{long}")]) {
            assert!(name.len() <= 33, "{name}");
        }
        for name in names(Scheme::Joliet, &[&long, &format!("{long}y")]) {
            assert!(name.chars().count() <= 64, "{name}");
        }
    }

    #[test]
    fn colliding_names_are_distinct_and_do_not_depend_on_order_or_number() {
        let few = names(Scheme::Primary, &["a.c", "A.c", "b"]);
        let many = names(Scheme::Primary, &["x/", "A.C", "b", "A.c", "a.c", "a_c"]);
        assert_eq!(few[0], many[4]);
        assert_eq!(few[1], many[3]);
        assert_eq!(few[2], "B.;1");
        let distinct: HashSet<_> = many.iter().collect();
        assert_eq!(distinct.len(), many.len());
    }

    #[test]
    fn a_file_and_a_directory_do_not_have_the_same_name() {
        let names = names(Scheme::Primary, &["a", "A/"]);
        assert_ne!(names[0].trim_end_matches(".;1"), names[1]);
    }

    #[test]
    fn a_name_that_looks_like_an_attempt_is_avoided() {
        let first = names(Scheme::Primary, &["a", "A"])[0].trim_end_matches(".;1").to_lowercase();
        let names = names(Scheme::Primary, &["a", "A", &first]);
        let distinct: HashSet<_> = names.iter().collect();
        assert_eq!(distinct.len(), 3);
        assert_eq!(names[2].trim_end_matches(".;1").to_lowercase(), first);
    }

    #[test]
    fn joliet_names_keep_what_ucs2_has() {
        let given = ["na\u{ef}ve \u{20ac}.txt", "a:b*c", "\u{1f600}x"];
        assert_eq!(names(Scheme::Joliet, &given), ["na\u{ef}ve \u{20ac}.txt", "a_b_c", "_x"]);
    }

    #[test]
    fn fifty_thousand_collisions_are_distinct() {
        let given: Vec<String> =
            (0..50_000).map(|i| format!("the same thirty characters here {i}.txt")).collect();
        let given: Vec<&str> = given.iter().map(String::as_str).collect();
        let mut count = HashMap::new();
        for name in names(Scheme::Primary, &given) {
            *count.entry(name).or_insert(0) += 1;
        }
        assert_eq!(count.len(), 50_000);
    }
}
