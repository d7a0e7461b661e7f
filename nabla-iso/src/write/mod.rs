//! Writes planned images: to files by several threads at once, to anything else from front to back.

mod copy;
mod ioctl;
pub(crate) mod output;
mod unit;

use crate::{
    error::Error,
    host::threads,
    plan::Plan,
    progress::{Phase, Progress},
};
use copy::{Copier, CopyMethods, Target};
use output::{Output, TargetKind};
use rustix::fd::AsFd;
use std::{
    io::Write,
    path::Path,
    sync::{
        Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};
use unit::{Unit, Units};

impl Plan {
    /// Writes the image to a file.
    ///
    /// It appears under its name when it is complete, with the rights that new files get, and replaces what was there.
    /// Until then it has no name where the file system can do that, and otherwise one that starts with a dot and ends
    /// in `.partial`, which the next image in that directory removes should this program be killed. Where the name is
    /// that of a device or a pipe, that is written to.
    ///
    /// The bytes are left to the kernel to be written back. Ask for [`ImageBuilder::sync`](crate::ImageBuilder::sync)
    /// if the image must have reached the disk before it has its name.
    ///
    /// # Errors
    ///
    /// The file cannot be written, a source cannot be read or is not any more what it was when the plan was made, or
    /// the progress callback said so. What had the name before is still there then, unless it is a device.
    pub fn write_file(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        let output = Output::open(path.as_ref())?;
        match output.kind() {
            TargetKind::Stream => self.write_named(output.file(), path.as_ref()),
            kind => {
                self.write_places(&output, kind == TargetKind::File)?;
                output.finish(self.sync)
            }
        }
    }

    /// Writes the image to a stream, from front to back.
    ///
    /// # Errors
    ///
    /// As [`Self::write_file`]; the stream may have got a part of the image then.
    pub fn write_to(&self, stream: impl Write + Send) -> Result<(), Error> {
        self.write_named(stream, Path::new("the stream"))
    }

    fn write_named(&self, stream: impl Write + Send, name: &Path) -> Result<(), Error> {
        let work = WorkQueue::new(self, Units::in_small_chunks());
        let ordered = OrderedStream {
            state: Mutex::new(StreamState { stream, next: 0, at: 0 }),
            advanced: Condvar::new(),
            name,
        };
        work.run(|| {
            let mut copier = Copier::new(self);
            while let Some((number, unit)) = work.next() {
                let bytes = copier.gather(unit);
                let written = bytes.and_then(|bytes| ordered.write(&work, number, unit.offset(self), bytes));
                work.done(unit, written);
                ordered.advanced.notify_all();
            }
        })?;
        ordered.finish(self.size())
    }

    /// Writes each piece to where it belongs.
    fn write_places(&self, output: &Output, fresh: bool) -> Result<(), Error> {
        if fresh {
            output.set_length(self.size())?;
        }
        let methods = CopyMethods::default();
        let target = Target { fd: output.file().as_fd(), path: output.path(), methods: &methods, fresh };
        if fresh {
            Copier::new(self).prepare(&target)?;
        }
        let work = WorkQueue::new(self, Units::default());
        work.run(|| {
            let mut copier = Copier::new(self);
            while let Some((_, unit)) = work.next() {
                work.done(unit, copier.write(unit, &target));
            }
        })?;
        if fresh { Ok(()) } else { self.write_gaps(&target) }
    }

    /// Writes the zeros after files, which are there already in a file that is new.
    fn write_gaps(&self, target: &Target<'_>) -> Result<(), Error> {
        let mut at = self.metadata_size();
        for &file in &self.files {
            let blob = &self.tree.blobs[file as usize];
            let start = u64::from(blob.extent) * crate::format::SECTOR_SIZE;
            target.zero(at, start - at)?;
            at = start + blob.size;
        }
        target.zero(at, self.size() - at)
    }
}

/// What the threads share: the pieces that are left, the progress, and the first error.
struct WorkQueue<'a> {
    plan: &'a Plan,
    left: Mutex<(usize, Units)>,
    failed: Mutex<Option<Error>>,
    files: AtomicU64,
    bytes: AtomicU64,
}

impl<'a> WorkQueue<'a> {
    fn new(plan: &'a Plan, units: Units) -> Self {
        let (files, bytes) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { plan, left: Mutex::new((0, units)), failed: Mutex::new(None), files, bytes }
    }

    /// Runs this on every thread.
    fn run(&self, job: impl Fn() + Sync) -> Result<(), Error> {
        threads::run(self.plan.threads, job);
        lock(&self.failed).take().map_or(Ok(()), Err)
    }

    /// The next piece and its number; none when all are given out or something has failed.
    fn next(&self) -> Option<(usize, Unit)> {
        if self.has_failed() {
            return None;
        }
        let mut left = lock(&self.left);
        let unit = left.1.next(self.plan)?;
        left.0 += 1;
        Some((left.0 - 1, unit))
    }

    fn has_failed(&self) -> bool {
        lock(&self.failed).is_some()
    }

    /// Counts and reports a piece, or keeps the first error.
    fn done(&self, unit: Unit, result: Result<(), Error>) {
        let result = result.and_then(|()| {
            let (files, bytes) = unit.amount(self.plan);
            let files = self.files.fetch_add(files, Ordering::Relaxed) + files;
            let bytes = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
            let (files_total, bytes_total) = (self.plan.files(), self.plan.bytes());
            self.plan.reporter.report(Progress {
                phase: Phase::Writing,
                files,
                files_total,
                bytes,
                bytes_total,
            })
        });
        if let Err(error) = result {
            lock(&self.failed).get_or_insert(error);
        }
    }
}

/// A stream to which threads write their pieces in order.
struct OrderedStream<'a, W> {
    state: Mutex<StreamState<W>>,
    advanced: Condvar,
    name: &'a Path,
}

struct StreamState<W> {
    stream: W,
    /// Number of the piece that is written next.
    next: usize,
    /// Bytes written.
    at: u64,
}

impl<W: Write> OrderedStream<'_, W> {
    /// Waits until the pieces before it are written, and writes a piece that belongs at `offset`.
    fn write(&self, work: &WorkQueue<'_>, number: usize, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        let pending = |state: &mut StreamState<W>| state.next != number && !work.has_failed();
        let state = self.advanced.wait_while(lock(&self.state), pending);
        let mut state = state.unwrap_or_else(PoisonError::into_inner);
        if state.next != number {
            // The thread that failed reports it.
            return Ok(());
        }
        state.fill(offset).and_then(|()| state.put(bytes)).map_err(|e| Error::io("write", self.name, e))?;
        state.next += 1;
        Ok(())
    }

    fn finish(self, size: u64) -> Result<(), Error> {
        let mut state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        let result = state.fill(size).and_then(|()| state.stream.flush());
        result.map_err(|error| Error::io("write", self.name, error))
    }
}

impl<W: Write> StreamState<W> {
    fn put(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes)?;
        self.at += bytes.len() as u64;
        Ok(())
    }

    /// Writes zeros up to here.
    fn fill(&mut self, end: u64) -> std::io::Result<()> {
        const ZEROS: [u8; 4096] = [0; 4096];
        while self.at < end {
            let length = usize::try_from(end - self.at).unwrap_or(usize::MAX).min(ZEROS.len());
            self.put(&ZEROS[..length])?;
        }
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
