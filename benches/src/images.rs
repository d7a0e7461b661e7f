//! Comparisons of making images of file systems, from files that are in the page cache.
//!
//! Each run writes a gigabyte or so. Before each, what was written is removed and everything is written back, so that one
//! run does not pay for another.

use crate::{
    comparison::Comparison,
    pairs::{Measured, measure},
    program::{find, time},
    setup::Setup,
};
use anyhow::{Context, Result, ensure};
use std::{
    ffi::OsString,
    fs::{self, File},
    io::Write,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
};

/// What is packed, as far as it is there: many small files, and some large ones.
const TREES: [&str; 4] = ["/usr/share", "/usr/include", "/usr/lib/python3", "/usr/lib/python3.11"];
/// Bytes of the one file.
const LARGE: u64 = 4 << 30;

/// Where things are written.
struct Place(tempfile::TempDir);

impl Place {
    /// Beside the program's own files: temporary directories may be in memory.
    fn new(setup: &Setup) -> Result<Self> {
        let parent = setup.nabla.parent().context("nabla is nowhere")?;
        Ok(Self(tempfile::tempdir_in(parent)?))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Times a run that makes the file `out`.
    fn time(&self, program: &Path, args: impl IntoIterator<Item = OsString>) -> Result<f64> {
        let out = self.path("out");
        if out.exists() {
            fs::remove_file(&out)?;
        }
        rustix::fs::sync();
        time(program, args)
    }
}

fn trees() -> impl Iterator<Item = OsString> {
    TREES.into_iter().filter(|tree| Path::new(tree).is_dir()).map(OsString::from)
}

fn build(place: &Place, sources: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let options = ["iso", "build", "--quiet", "-o"].into_iter().map(OsString::from);
    options.chain([place.path("out").into()]).chain(sources).collect()
}

fn against(setup: &Setup, pairs: u32, peer: &str, line: fn(OsString) -> Vec<OsString>) -> Result<Measured> {
    let place = Place::new(setup)?;
    let program = find(peer).with_context(|| format!("{peer} is not on PATH"))?;
    measure(
        pairs.div_ceil(10),
        || place.time(&setup.nabla, build(&place, trees())),
        || place.time(&program, line(place.path("out").into())),
    )
}

/// A file of random bytes, which no file system can make smaller.
fn large(path: &Path) -> Result<()> {
    let mut file = File::create(path)?;
    let mut state = 1_u64;
    let mut block = vec![0; 1 << 20];
    for _ in 0..LARGE >> 20 {
        for word in block.chunks_exact_mut(8) {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            word.copy_from_slice(&state.to_le_bytes());
        }
        file.write_all(&block)?;
    }
    Ok(())
}

fn one_file(setup: &Setup, pairs: u32) -> Result<Measured> {
    let place = Place::new(setup)?;
    let source = place.path("source");
    fs::create_dir(&source)?;
    large(&source.join("file"))?;
    let cp = find("cp").context("cp is not on PATH")?;
    measure(
        pairs.div_ceil(10),
        || place.time(&setup.nabla, build(&place, [source.clone().into()].into_iter())),
        || place.time(&cp, [source.join("file").into(), place.path("out").into()]),
    )
}

/// A file system with reflinks in a file, mounted for as long as this is there.
struct Xfs(PathBuf);

impl Xfs {
    fn new(place: &Place) -> Result<Self> {
        let (image, point) = (place.path("xfs"), place.path("mounted"));
        File::create(&image)?.set_len(LARGE + (1 << 30))?;
        fs::create_dir(&point)?;
        let run = |command: &mut Command| -> Result<()> {
            let output = command.output().with_context(|| format!("cannot start {command:?}"))?;
            ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
            Ok(())
        };
        run(Command::new("mkfs.xfs").args(["-q", "-m", "reflink=1"]).arg(&image))?;
        run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&point))?;
        Ok(Self(point))
    }
}

impl Drop for Xfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

/// Against a tenth of a second.
fn shared(setup: &Setup, pairs: u32) -> Result<Measured> {
    const LIMIT_US: f64 = 100_000.0;
    let place = Place::new(setup)?;
    let xfs = Xfs::new(&place)?;
    let (source, out) = (xfs.0.join("source"), xfs.0.join("out"));
    fs::create_dir(&source)?;
    large(&source.join("file"))?;
    let line = ["iso", "build", "--quiet", "-o"].map(OsString::from).into_iter();
    let line: Vec<OsString> = line.chain([out.clone().into(), source.into()]).collect();
    measure(
        pairs.div_ceil(10),
        || {
            if out.exists() {
                fs::remove_file(&out)?;
            }
            rustix::fs::sync();
            time(&setup.nabla, line.clone())
        },
        || Ok(LIMIT_US),
    )
}

/// Whether a file system with reflinks can be made and mounted.
fn can_share() -> bool {
    let loops = fs::metadata("/dev/loop-control").is_ok_and(|device| device.mode() != 0);
    rustix::process::geteuid().is_root() && loops && find("mkfs.xfs").is_some()
}

/// All of them.
pub fn all() -> Vec<Comparison> {
    vec![
        Comparison {
            name: "iso-tree-genisoimage",
            ours: "nabla iso build of a large tree",
            theirs: "genisoimage -R -D",
            unit: "us",
            at_most: Some(0.3),
            is_possible: |_| find("genisoimage").is_some(),
            run: |s, n| {
                against(s, n, "genisoimage", |out| {
                    let options = ["-quiet", "-R", "-D", "-o"].map(OsString::from).into_iter();
                    options.chain([out]).chain(trees()).collect()
                })
            },
        },
        Comparison {
            name: "iso-tree-tar",
            ours: "nabla iso build of a large tree",
            theirs: "tar cf",
            unit: "us",
            at_most: Some(0.6),
            is_possible: |_| find("tar").is_some(),
            run: |s, n| {
                against(s, n, "tar", |out| [OsString::from("cf"), out].into_iter().chain(trees()).collect())
            },
        },
        Comparison {
            name: "iso-one-file",
            ours: "nabla iso build of one file of 4 GiB",
            theirs: "cp",
            unit: "us",
            at_most: Some(1.1),
            is_possible: |_| find("cp").is_some(),
            run: one_file,
        },
        Comparison {
            name: "iso-shared-file",
            ours: "nabla iso build of one file of 4 GiB on XFS",
            theirs: "a tenth of a second",
            unit: "us",
            at_most: Some(1.0),
            is_possible: |_| can_share(),
            run: shared,
        },
    ]
}
