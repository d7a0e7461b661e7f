//! Finds files with the same contents.

use crate::{
    error::Error,
    host::threads,
    progress::{Phase, Progress, Reporter},
    source::{
        blob::{Blob, BlobSource},
        open::{Opened, Opener},
        tree::Tree,
    },
};
use std::{
    collections::HashMap,
    hash::{BuildHasher, Hasher, RandomState},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

const BUFFER: usize = 128 << 10;

/// Makes contents that are equal to ones before them in `order` refer to these, and takes them out of `order`.
pub fn deduplicate(
    tree: &mut Tree,
    order: &mut Vec<u32>,
    threads: usize,
    reporter: &Reporter,
) -> Result<(), Error> {
    // By size, and those of a size in their order.
    let mut by_size: Vec<(u64, usize)> =
        order.iter().enumerate().map(|(place, &blob)| (tree.blobs[blob as usize].size, place)).collect();
    by_size.sort_unstable();
    let groups: Vec<&[(u64, usize)]> =
        by_size.chunk_by(|a, b| a.0 == b.0).filter(|group| group.len() > 1).collect();
    let next = AtomicUsize::new(0);
    let result = Mutex::new(Ok(Vec::new()));
    threads::run(threads, || {
        let mut comparer = Comparer::new(tree);
        while let Some(group) = groups.get(next.fetch_add(1, Ordering::Relaxed)) {
            let found = comparer.find(order, group).and_then(|found| {
                let done = next.load(Ordering::Relaxed).min(groups.len());
                let (files, files_total) = (done as u64, groups.len() as u64);
                reporter.report(Progress {
                    phase: Phase::Comparing,
                    files,
                    files_total,
                    bytes: 0,
                    bytes_total: 0,
                })?;
                Ok(found)
            });
            let mut result = result.lock().unwrap_or_else(PoisonError::into_inner);
            match (&mut *result, found) {
                (Ok(all), Ok(found)) => all.extend(found),
                (Err(_), _) => break,
                (_, Err(error)) => {
                    *result = Err(error);
                    break;
                }
            }
        }
    });
    let same = result.into_inner().unwrap_or_else(PoisonError::into_inner)?;
    for (blob, original) in same {
        tree.blobs[blob as usize].source = BlobSource::Same(original);
    }
    order.retain(|&blob| !matches!(tree.blobs[blob as usize].source, BlobSource::Same(_)));
    Ok(())
}

/// Compares contents.
struct Comparer<'a> {
    tree: &'a Tree,
    opener: Opener<'a>,
    other: Opener<'a>,
    hash: RandomState,
    buffers: [Vec<u8>; 2],
}

impl<'a> Comparer<'a> {
    fn new(tree: &'a Tree) -> Self {
        let buffers = [vec![0; BUFFER], vec![0; BUFFER]];
        Self { tree, opener: Opener::new(tree), other: Opener::new(tree), hash: RandomState::new(), buffers }
    }

    /// Which contents of a group are the same as earlier ones.
    fn find(&mut self, order: &[u32], group: &[(u64, usize)]) -> Result<Vec<(u32, u32)>, Error> {
        let mut known: HashMap<u64, Vec<u32>> = HashMap::new();
        let mut same = Vec::new();
        for &(_, place) in group {
            let number = order[place];
            let hash = self.hash(number)?;
            let candidates = known.entry(hash).or_default();
            let mut found = None;
            for &candidate in candidates.iter() {
                if self.equal(number, candidate)? {
                    found = Some(candidate);
                    break;
                }
            }
            match found {
                Some(original) => same.push((number, original)),
                None => candidates.push(number),
            }
        }
        Ok(same)
    }

    fn blob(&self, number: u32) -> &'a Blob {
        &self.tree.blobs[number as usize]
    }

    /// Parts that are zero do not count, so that holes need not be read.
    fn hash(&mut self, number: u32) -> Result<u64, Error> {
        let blob = self.blob(number);
        let opened = self.opener.open(blob)?;
        let mut hasher = self.hash.build_hasher();
        let [buffer, _] = &mut self.buffers;
        let mut at = 0;
        while let Some((start, _)) = self.opener.next_data(blob, &opened, at, blob.size)? {
            at = start / BUFFER as u64 * BUFFER as u64;
            let part = part(buffer, blob.size - at);
            self.opener.read(blob, &opened, at, part)?;
            if part.iter().any(|&byte| byte != 0) {
                hasher.write_u64(at);
                hasher.write(part);
            }
            at += part.len() as u64;
        }
        self.opener.check(blob, &opened)?;
        Ok(hasher.finish())
    }

    fn equal(&mut self, a: u32, b: u32) -> Result<bool, Error> {
        let (a, b) = (self.blob(a), self.blob(b));
        let opened: (Opened<'_>, Opened<'_>) = (self.opener.open(a)?, self.other.open(b)?);
        let [buffer, other] = &mut self.buffers;
        let mut at = 0;
        loop {
            let one = self.opener.next_data(a, &opened.0, at, a.size)?;
            let two = self.other.next_data(b, &opened.1, at, a.size)?;
            let Some(start) = [one, two].into_iter().flatten().map(|(start, _)| start).min() else { break };
            at = start / BUFFER as u64 * BUFFER as u64;
            let (x, y) = (part(buffer, a.size - at), part(other, a.size - at));
            self.opener.read(a, &opened.0, at, x)?;
            self.other.read(b, &opened.1, at, y)?;
            if x != y {
                return Ok(false);
            }
            at += x.len() as u64;
        }
        self.opener.check(a, &opened.0)?;
        self.other.check(b, &opened.1)?;
        Ok(true)
    }
}

/// As much of a buffer as there is to read.
fn part(buffer: &mut [u8], left: u64) -> &mut [u8] {
    let length = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
    &mut buffer[..length]
}
