//! `solo5-elftool`: makes the C source of a manifest, and tells manifest and ABI of an image.

use super::{ELFTOOL, VERSION, manifest_source, notes::Notes, strerror, warn};
use crate::{error::chain, output, pending::PendingFile};
use nabla_core::{Manifest, target_name};
use nabla_monitor::{Error, ImageFile};
use std::{
    ffi::{OsStr, OsString},
    fs,
    io::{self, Read},
    path::Path,
};

/// Does what the command line says and returns the exit status.
pub fn main(args: &[OsString]) -> u8 {
    let words: Vec<&OsStr> = args.iter().skip(1).map(OsString::as_os_str).collect();
    let result = match (words.first().and_then(|word| word.to_str()), words.get(1..).unwrap_or_default()) {
        (Some("gen-manifest"), [source, output]) => generate(source, output),
        (Some("query-manifest"), [image]) => query_manifest(Path::new(image)),
        (Some("query-abi"), [image]) => query_abi(Path::new(image)),
        _ => {
            output::complain(&usage());
            return 1;
        }
    };
    match result {
        Ok(()) => 0,
        Err(message) => {
            warn(ELFTOOL, &message);
            1
        }
    }
}

fn usage() -> String {
    format!(
        "usage: {ELFTOOL} COMMAND ...\n\
         {ELFTOOL} version {VERSION}\n\
         \n\
         COMMAND is one of:\n\
         \x20   gen-manifest SOURCE OUTPUT:\n\
         \x20       Make C source OUTPUT from the JSON manifest SOURCE; - is standard input or output.\n\
         \x20   query-abi BINARY:\n\
         \x20       Print the ABI's target and version of BINARY.\n\
         \x20   query-manifest BINARY:\n\
         \x20       Print the manifest of BINARY."
    )
}

fn generate(source: &OsStr, output: &OsStr) -> Result<(), String> {
    let name = source.to_string_lossy();
    let text = if source == "-" {
        let mut text = Vec::new();
        io::stdin().lock().read_to_end(&mut text).map(|_| text)
    } else {
        fs::read(source)
    };
    let text = text.map_err(|error| format!("{name}: Could not open for reading: {}", strerror(&error)))?;
    if output == "-" {
        return print(&manifest_source::generate(&text, &name)?);
    }
    let cannot_write =
        |error: io::Error| format!("{}: Could not open for writing: {}", output.display(), strerror(&error));
    // Before the source is looked at, as in the original.
    let file = PendingFile::create(Path::new(output)).map_err(cannot_write)?;
    file.finish(&manifest_source::generate(&text, &name)?).map_err(cannot_write)
}

fn query_manifest(path: &Path) -> Result<(), String> {
    let name = path.display();
    match notes(path)?.manifest {
        None => Err(format!("{name}: No Solo5 manifest found in executable")),
        Some(Err(error)) => Err(format!("{name}: Manifest validation failed: {error}")),
        Some(Ok(manifest)) => print(&describe(&manifest)),
    }
}

fn describe(manifest: &Manifest) -> Vec<u8> {
    let devices: Vec<Vec<u8>> = manifest
        .devices()
        .map(|device| {
            let kind = device.kind.solo5_name();
            // The original prints the name as it is, which is no JSON if the name has such characters.
            let name = String::from_utf8_lossy(device.name.as_bytes());
            format!("    {{ \"name\": {}, \"type\": \"{kind}\" }}", output::json_string(&name)).into_bytes()
        })
        .collect();
    let mut text = b"{\n  \"type\": \"solo5.manifest\",\n  \"version\": 1,\n  \"devices\": [\n".to_vec();
    text.extend(devices.join(&b",\n"[..]));
    text.extend_from_slice(if devices.is_empty() { b"  ]\n}\n" } else { b"\n  ]\n}\n" });
    text
}

fn query_abi(path: &Path) -> Result<(), String> {
    let (target, version) = notes(path)?
        .abi
        .ok_or_else(|| format!("{}: No Solo5 ABI information found in executable", path.display()))?;
    let target = target_name(target);
    print(
        format!(
            "{{\n  \"type\": \"solo5.abi\",\n  \"target\": \"{target}\",\n  \"version\": {version}\n}}\n"
        )
        .as_bytes(),
    )
}

fn notes(path: &Path) -> Result<Notes, String> {
    let file = ImageFile::open(path).map_err(|error| open_message(path, &error))?;
    Notes::read(&file).map_err(|error| format!("{}: {error}", path.display()))
}

/// Why an image cannot be opened, in Solo5's words.
pub fn open_message(path: &Path, error: &Error) -> String {
    match error {
        Error::OpenImage { source, .. } => {
            format!("{}: Could not open: {}", path.display(), strerror(source))
        }
        Error::ImageNotAFile { .. } => format!("{}: invalid executable: not a regular file", path.display()),
        other => format!("{}: {}", path.display(), chain(other)),
    }
}

fn print(text: &[u8]) -> Result<(), String> {
    output::print(text).map_err(|error| format!("{error:#}"))
}
