//! `nabla iso build`.

use crate::output;
use anyhow::{Context, bail, ensure};
use clap::Args;
use indicatif::{HumanBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};
use nabla_iso::{Entry, ImageBuilder, Phase, Plan, Progress, Timestamp};
use serde::Serialize;
use std::{
    env,
    ffi::{OsStr, OsString},
    io::{self, IsTerminal},
    num::NonZero,
    ops::ControlFlow,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    time::Instant,
};

const EXAMPLES: &str = "\
Examples:
  nabla iso build rootfs -o rootfs.iso
  # the layers of a container image, and a file of one's own on top
  nabla iso build --from-tar base.tar --from-tar app.tar --add /etc/hosts=./hosts -o rootfs.iso
  zcat layer.tar.gz | nabla iso build --from-tar - -o rootfs.iso
  # everything root's, and without what Python leaves behind
  nabla iso build rootfs -o rootfs.iso --owner 0:0 --exclude '*.pyc' --exclude /var/cache
  # the same bytes whenever it is made
  SOURCE_DATE_EPOCH=1700000000 nabla iso build rootfs -o rootfs.iso
  nabla iso build rootfs -o - | ssh host 'cat > rootfs.iso'

Sources are laid over each other: directories in their order, then tar files in theirs, then what --add says. \
Directories are merged; of other files with the same path, the last one stays.

Patterns: without a slash they match names wherever these are, with one they match paths from the source's root. \
* and ? do not match slashes, ** does; [a-z] is a set, {a,b} a choice.

Exit status: 0, or 125 when there is no image.";

/// Arguments of `nabla iso build`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct BuildArgs {
    /// Directories that become the root.
    #[arg(required_unless_present_any = ["from_tar", "add"])]
    directories: Vec<PathBuf>,

    /// The image; - for standard output.
    #[arg(short, long, value_name = "IMAGE")]
    output: PathBuf,

    /// Add a tar file, with whiteouts as layers of container images have them; - for standard input.
    #[arg(long, value_name = "FILE")]
    from_tar: Vec<PathBuf>,

    /// Put a file at a path of the image, whatever is there.
    #[arg(long, value_name = "PATH=FILE")]
    add: Vec<OsString>,

    /// Leave out files that match.
    #[arg(long, value_name = "PATTERN")]
    exclude: Vec<String>,

    /// Give all files to this user and group.
    #[arg(long, value_name = "UID[:GID]", value_parser = owner)]
    owner: Option<(u32, u32)>,

    /// Permissions of all files but directories and symbolic links, in octal digits.
    #[arg(long, value_name = "MODE", value_parser = mode)]
    file_mode: Option<u32>,

    /// Permissions of all directories, in octal digits.
    #[arg(long, value_name = "MODE", value_parser = mode)]
    dir_mode: Option<u32>,

    /// Time of the last modification of everything, in seconds since 1970.
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    time: Option<i64>,

    /// Name of the volume: 1 to 32 printable ASCII characters.
    #[arg(long, value_name = "NAME", default_value = "NABLA")]
    volume_id: String,

    /// Add Joliet names, for systems that do not know Rock Ridge.
    #[arg(long)]
    joliet: bool,

    /// Leave directories below the eighth level where they are, against ECMA-119.
    #[arg(long)]
    no_relocate: bool,

    /// Store files with the same contents once.
    #[arg(long)]
    dedup: bool,

    /// Leave directories empty that are on other file systems.
    #[arg(short = 'x', long)]
    one_file_system: bool,

    /// Fail when there is something that an image cannot hold, such as a socket, instead of leaving it out.
    #[arg(long)]
    strict: bool,

    /// How many threads work [default: the processors, 8 at most].
    #[arg(long, value_name = "N")]
    threads: Option<NonZero<usize>>,

    /// Wait until the image has reached the disk.
    #[arg(long)]
    sync: bool,

    /// Print JSON when the image is complete.
    #[arg(long, conflicts_with = "quiet")]
    json: bool,

    /// Print nothing but errors.
    #[arg(short, long)]
    quiet: bool,
}

/// Makes an image.
pub fn main(args: &BuildArgs) -> anyhow::Result<u8> {
    let to_stdout = args.output == Path::new("-");
    ensure!(
        !(to_stdout && args.json),
        "standard output cannot have both the image and what --json prints; write the image to a file"
    );
    let start = Instant::now();
    let bar = bar(args.quiet || args.json);
    let plan = builder(args, &bar)?.plan()?;
    if !args.quiet {
        for warning in plan.warnings() {
            let line = output::one_line(&format!("nabla: warning: {warning}"));
            bar.suspend(|| output::complain(&line));
        }
    }
    let written = if to_stdout { plan.write_to(io::stdout()) } else { plan.write_file(&args.output) };
    bar.finish_and_clear();
    match written {
        // The reader has seen enough.
        Err(nabla_iso::Error::Io { source, .. })
            if to_stdout && source.kind() == io::ErrorKind::BrokenPipe =>
        {
            return Ok(0);
        }
        Err(nabla_iso::Error::Io { path, source, .. }) if to_stdout && path == Path::new("the stream") => {
            return Err(source).context("cannot write the image to standard output");
        }
        result => result?,
    }
    let summary = Summary::new(args, &plan, start);
    if args.json {
        output::print_json(&summary)?;
    } else if !args.quiet && !to_stdout {
        output::print(summary.text().as_bytes())?;
    }
    Ok(0)
}

fn builder(args: &BuildArgs, bar: &ProgressBar) -> anyhow::Result<ImageBuilder> {
    let mut builder = ImageBuilder::new()
        .volume_id(&args.volume_id)
        .joliet(args.joliet)
        .relocate(!args.no_relocate)
        .deduplicate(args.dedup)
        .one_file_system(args.one_file_system)
        .refuse_sockets(args.strict)
        .sync(args.sync)
        .skip(&args.output);
    for directory in &args.directories {
        builder = builder.directory(directory);
    }
    for tar in &args.from_tar {
        builder = if tar == Path::new("-") {
            builder.tar("standard input", io::stdin())
        } else {
            builder.tar_file(tar)
        };
    }
    for text in &args.add {
        let (path, file) = addition(text).with_context(|| {
            format!(
                "--add takes PATH=FILE, a path in the image and a file of this host, not '{}'",
                text.display()
            )
        })?;
        builder = builder.entry(path, Entry::file(file));
    }
    for pattern in &args.exclude {
        builder = builder.exclude(pattern);
    }
    if let Some((uid, gid)) = args.owner {
        builder = builder.owner(uid, gid);
    }
    if let Some(mode) = args.file_mode {
        builder = builder.file_mode(mode);
    }
    if let Some(mode) = args.dir_mode {
        builder = builder.directory_mode(mode);
    }
    if let Some(seconds) = args.time {
        builder = builder.time(Timestamp::from_seconds(seconds));
    }
    if let Some(latest) = source_date_epoch(env::var_os("SOURCE_DATE_EPOCH").as_deref())? {
        builder = builder.latest_time(latest);
    }
    if let Some(threads) = args.threads {
        builder = builder.threads(threads);
    }
    let bar = bar.clone();
    Ok(builder.progress(move |progress| {
        show(&bar, progress);
        ControlFlow::Continue(())
    }))
}

/// The two halves of `PATH=FILE`.
fn addition(text: &OsStr) -> Option<(&Path, &Path)> {
    let bytes = text.as_bytes();
    let middle = bytes.iter().position(|&byte| byte == b'=')?;
    let (path, file) = (&bytes[..middle], &bytes[middle + 1..]);
    let path_of = |bytes| Path::new(OsStr::from_bytes(bytes));
    (!path.is_empty() && !file.is_empty()).then_some((path_of(path), path_of(file)))
}

/// See <https://reproducible-builds.org/specs/source-date-epoch/>.
fn source_date_epoch(value: Option<&OsStr>) -> anyhow::Result<Option<Timestamp>> {
    let Some(value) = value.filter(|value| !value.is_empty()) else { return Ok(None) };
    match value.to_str().and_then(|text| text.parse().ok()) {
        Some(seconds) => Ok(Some(Timestamp::from_seconds(seconds))),
        None => bail!("SOURCE_DATE_EPOCH is '{}', and has to be a number of seconds", value.display()),
    }
}

fn owner(text: &str) -> Result<(u32, u32), String> {
    let number =
        |text: &str| text.parse().map_err(|_| "a number, or two with a colon between them".to_owned());
    match text.split_once(':') {
        Some((user, group)) => Ok((number(user)?, number(group)?)),
        None => number(text).map(|number| (number, number)),
    }
}

fn mode(text: &str) -> Result<u32, String> {
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777);
    mode.ok_or_else(|| "octal digits, up to 7777".to_owned())
}

/// A bar on a terminal, and nothing elsewhere.
fn bar(hidden: bool) -> ProgressBar {
    let target = if hidden || !io::stderr().is_terminal() {
        ProgressDrawTarget::hidden()
    } else {
        ProgressDrawTarget::stderr_with_hz(10)
    };
    ProgressBar::with_draw_target(None, target)
}

fn show(bar: &ProgressBar, progress: Progress) {
    let Progress { phase, files, files_total, bytes, bytes_total, .. } = progress;
    if bar.is_hidden() {
        return;
    }
    let template = match phase {
        Phase::Writing => "{bar:32} {bytes} of {total_bytes}, {msg} ({bytes_per_sec}, {eta})",
        _ => "{spinner} {msg}",
    };
    if bar.length() != Some(bytes_total) || phase != Phase::Writing {
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_length(bytes_total);
        bar.reset_eta();
    }
    bar.set_message(match phase {
        Phase::Scanning => format!("looking for files: {files}"),
        Phase::Comparing => format!("comparing files: {files} of {files_total}"),
        _ => format!("{files} of {files_total} files"),
    });
    bar.set_position(bytes);
}

/// What is printed at the end. The JSON form is described in docs/cli.md.
#[derive(Debug, Serialize)]
struct Summary {
    #[serde(rename = "type")]
    kind: &'static str,
    version: u32,
    image: String,
    size: u64,
    volume_id: String,
    entries: u64,
    files: u64,
    file_bytes: u64,
    metadata_bytes: u64,
    duration_ns: u64,
    warnings: Vec<WarningText>,
}

#[derive(Debug, Serialize)]
struct WarningText {
    path: String,
    message: String,
}

impl Summary {
    fn new(args: &BuildArgs, plan: &Plan, start: Instant) -> Self {
        let warnings = plan.warnings().iter();
        Self {
            kind: "nabla.iso",
            version: 1,
            image: args.output.display().to_string(),
            size: plan.size(),
            volume_id: plan.volume_id().to_owned(),
            entries: plan.entries(),
            files: plan.files(),
            file_bytes: plan.bytes(),
            metadata_bytes: plan.metadata_size(),
            duration_ns: u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX),
            warnings: warnings
                .map(|warning| WarningText {
                    path: warning.path.display().to_string(),
                    message: warning.kind.to_string(),
                })
                .collect(),
        }
    }

    fn text(&self) -> String {
        let line = format!(
            "{}: {} with {} entries, {} of files",
            self.image,
            HumanBytes(self.size),
            self.entries,
            HumanBytes(self.file_bytes),
        );
        output::one_line(&line) + "\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn additions_have_two_halves() {
        let parse =
            |text| addition(OsStr::new(text)).map(|(a, b)| (a.to_str().unwrap(), b.to_str().unwrap()));
        assert_eq!(parse("/etc/hosts=./a=b"), Some(("/etc/hosts", "./a=b")));
        for text in ["", "/x", "=y", "/x="] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn numbers_are_checked() {
        assert_eq!(owner("5"), Ok((5, 5)));
        assert_eq!(owner("5:6"), Ok((5, 6)));
        assert!(owner("root").is_err() && owner("-1").is_err() && owner("1:").is_err());
        assert_eq!(mode("0755"), Ok(0o755));
        assert!(mode("8").is_err() && mode("10000").is_err());
        assert!(source_date_epoch(Some(OsStr::new("x"))).is_err());
        assert_eq!(source_date_epoch(Some(OsStr::new(""))).unwrap(), None);
        assert_eq!(source_date_epoch(Some(OsStr::new("7"))).unwrap(), Some(Timestamp::from_seconds(7)));
    }
}
