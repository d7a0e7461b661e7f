//! Writing to standard output, standard error, and files that appear whole or not at all.

use anyhow::Context;
use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Write},
    path::{Path, PathBuf},
    process,
};

/// Writes to standard output. That the reader went away is no error: it has seen enough.
pub fn print(text: &[u8]) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => result.context("cannot write to standard output"),
    }
}

/// Writes a serialised value and a newline to standard output.
pub fn print_json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    let mut text = serde_json::to_vec_pretty(value).context("cannot write JSON")?;
    text.push(b'\n');
    print(&text)
}

/// Writes a line to standard error, with one system call. Without a standard error, the line is lost.
pub fn complain(line: &str) {
    let line = if line.ends_with('\n') { line.to_owned() } else { format!("{line}\n") };
    let _ = io::stderr().write_all(line.as_bytes());
}

/// The same text without line breaks and other control characters, which names of files and interfaces may contain, and
/// without those that are not seen or change the order of what is.
pub fn one_line(text: &str) -> String {
    let is_unsafe = |c: char| {
        let is_format = matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
        c.is_control() || is_format
    };
    text.chars().map(|c| if is_unsafe(c) { c.escape_default().to_string() } else { c.to_string() }).collect()
}

/// A file that is written under another name and gets its own when it is complete. What exists and is no regular
/// file (a pipe, a device) is written in place.
#[derive(Debug)]
pub struct PendingFile {
    file: File,
    /// The name that it has for now and the one that it gets; nothing when it is written in place.
    names: Option<(PathBuf, PathBuf)>,
}

impl PendingFile {
    /// Starts writing the file at `path`. Fails here if it will not be possible.
    pub fn create(path: &Path) -> io::Result<Self> {
        match fs::metadata(path) {
            Ok(metadata) if !metadata.is_file() => {
                Ok(Self { file: OpenOptions::new().write(true).open(path)?, names: None })
            }
            _ => {
                let (file, temporary) = create_beside(path)?;
                Ok(Self { file, names: Some((temporary, path.to_owned())) })
            }
        }
    }

    /// Writes `contents` and gives the file its name.
    pub fn finish(mut self, contents: &[u8]) -> io::Result<()> {
        self.file.write_all(contents)?;
        if let Some((temporary, path)) = &self.names {
            fs::rename(temporary, path)?;
            self.names = None;
        }
        Ok(())
    }
}

impl Drop for PendingFile {
    fn drop(&mut self) {
        if let Some((temporary, _)) = &self.names {
            let _ = fs::remove_file(temporary);
        }
    }
}

/// Creates a file in the directory of `path`, under a name that no other file has.
fn create_beside(path: &Path) -> io::Result<(File, PathBuf)> {
    let name = path.file_name().ok_or_else(|| io::Error::from(ErrorKind::IsADirectory))?;
    for attempt in 0.. {
        let mut temporary = OsString::from(".");
        temporary.push(name);
        temporary.push(format!(".{}-{attempt}", process::id()));
        let temporary = path.with_file_name(temporary);
        match OpenOptions::new().write(true).create_new(true).open(&temporary) {
            // Left by a process of the same id that was killed.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            result => return Ok((result?, temporary)),
        }
    }
    Err(ErrorKind::AlreadyExists.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pending_file_appears_when_it_is_finished_and_leaves_nothing_otherwise() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("report.json");
        fs::write(&path, "old").unwrap();

        drop(PendingFile::create(&path).unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        let pending = PendingFile::create(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        pending.finish(b"new").unwrap();

        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn pending_file_in_a_missing_directory_fails_at_once() {
        assert!(PendingFile::create(Path::new("/nonexistent/report.json")).is_err());
        assert!(PendingFile::create(Path::new("/")).is_err());
    }

    #[test]
    fn devices_are_written_in_place() {
        PendingFile::create(Path::new("/dev/null")).unwrap().finish(b"x").unwrap();
    }

    #[test]
    fn one_line_has_no_control_characters() {
        assert_eq!(one_line("a\nb\u{1b}c é"), "a\\nb\\u{1b}c é");
        assert_eq!(one_line("tap\u{9b}0\u{202e}x\u{2028}"), "tap\\u{9b}0\\u{202e}x\\u{2028}");
    }
}
