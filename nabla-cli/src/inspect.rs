//! `nabla inspect`.

use crate::output;
use anyhow::Context;
use clap::{
    Args,
    builder::{PossibleValuesParser, TypedValueParser},
};
use nabla_core::{Abi, AbiSource, ByteSize, Image, ReadAt, Warning};
use nabla_monitor::ImageFile;
use nabla_net::ConfigStyle;
use serde::Serialize;
use std::{fmt::Write, path::PathBuf};

const EXAMPLES: &str = "\
Examples:
  nabla inspect app.nabla
  nabla inspect app.nabla --json
  # an image from before 2019, which does not say what it is
  nabla inspect app.nabla --abi nabla-2018

Exit status: 0, or 125 when nabla itself failed, 126 when this is no image of a guest, 127 when it does not exist.";

/// Arguments of `nabla inspect`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct InspectArgs {
    /// The image.
    image: PathBuf,

    /// Print JSON.
    #[arg(long)]
    json: bool,

    /// ABI of an image that does not say which it has.
    #[arg(long, value_parser = abi_parser())]
    abi: Option<Abi>,
}

fn abi_parser() -> impl TypedValueParser<Value = Abi> {
    PossibleValuesParser::new(Abi::ALL.map(Abi::name)).try_map(|name| name.parse::<Abi>())
}

/// Prints what is in an image.
pub fn main(args: &InspectArgs) -> anyhow::Result<u8> {
    let open = ImageFile::open(&args.image)?.parse(args.abi)?;
    let (file, image) = (open.file(), open.image());
    let style = ConfigStyle::of_image(image, file)
        .with_context(|| format!("cannot read the symbols of image '{}'", args.image.display()))?;
    let description = Description::new(args.image.display().to_string(), file.size(), image, style);
    if args.json {
        output::print_json(&description)?;
    } else {
        output::print_lines(&description.text())?;
    }
    Ok(0)
}

/// What is printed. The JSON form is described in docs/cli.md.
#[derive(Debug, Serialize)]
struct Description {
    #[serde(rename = "type")]
    kind: &'static str,
    version: u32,
    image: String,
    file_size: u64,
    abi: &'static str,
    abi_source: &'static str,
    abi_reasons: Vec<String>,
    backend: &'static str,
    entry: String,
    image_end: String,
    minimum_memory: u64,
    net_config: Option<&'static str>,
    net_config_source: Option<&'static str>,
    devices: Vec<Device>,
    segments: Vec<Segment>,
    warnings: Vec<WarningJson>,
}

#[derive(Debug, Serialize)]
struct Device {
    index: usize,
    name: String,
    kind: String,
}

#[derive(Debug, Serialize)]
struct Segment {
    index: u16,
    start: String,
    end: String,
    memory_size: u64,
    file_offset: u64,
    file_size: u64,
    permissions: String,
}

#[derive(Debug, Serialize)]
struct WarningJson {
    kind: &'static str,
    message: String,
}

impl Description {
    fn new(path: String, file_size: u64, image: &Image, style: Option<ConfigStyle>) -> Self {
        let (abi_source, abi_reasons) = match image.abi_source() {
            AbiSource::Note => ("note", Vec::new()),
            AbiSource::Guess { reasons } => ("guess", reasons.clone()),
            AbiSource::Caller => ("caller", Vec::new()),
        };
        let device = |device: nabla_core::Device| Device {
            index: device.index,
            name: device.name.to_string(),
            kind: device.kind.to_string(),
        };
        let segment = |segment: &nabla_core::Segment| Segment {
            index: segment.index,
            start: format!("{:#x}", segment.address),
            end: format!("{:#x}", segment.end()),
            memory_size: segment.memory_size,
            file_offset: segment.file_offset,
            file_size: segment.file_size,
            permissions: segment.permissions.to_string(),
        };
        let warning =
            |warning: &Warning| WarningJson { kind: warning_kind(warning), message: warning.to_string() };
        Self {
            kind: "nabla.image",
            version: 1,
            image: path,
            file_size,
            abi: image.abi().name(),
            abi_source,
            abi_reasons,
            backend: if image.abi().needs_kvm() { "kvm" } else { "process" },
            entry: format!("{:#x}", image.entry()),
            image_end: format!("{:#x}", image.end()),
            minimum_memory: image.minimum_memory().as_u64(),
            net_config: style.map(ConfigStyle::name),
            net_config_source: style
                .map(|style| if style == ConfigStyle::Nabla { "note" } else { "symbols" }),
            devices: image.manifest().devices().map(device).collect(),
            segments: image.segments().iter().map(segment).collect(),
            warnings: image.warnings().iter().map(warning).collect(),
        }
    }

    fn text(&self) -> String {
        let mut text = String::new();
        self.write_text(&mut text).expect("writing to a string cannot fail");
        text
    }

    fn write_text(&self, out: &mut String) -> std::fmt::Result {
        let source = match self.abi_source {
            "note" => "as its ABI note says",
            "caller" => "as you say",
            _ => "a guess, since it has no ABI note:",
        };
        let backend = if self.backend == "kvm" { "a virtual machine (KVM)" } else { "a confined process" };
        writeln!(out, "image     {}, {} bytes", output::one_line(&self.image), self.file_size)?;
        writeln!(out, "abi       {}, {source}", self.abi)?;
        for reason in &self.abi_reasons {
            writeln!(out, "          - {}", output::one_line(reason))?;
        }
        writeln!(out, "runs as   {backend}")?;
        writeln!(out, "entry     {}", self.entry)?;
        writeln!(
            out,
            "memory    {} or more; the image ends at {}",
            ByteSize::bytes(self.minimum_memory),
            self.image_end
        )?;
        self.write_devices(out)?;
        match (self.net_config, self.net_config_source) {
            (Some(style), Some("note")) => writeln!(out, "net args  {style}, as its network note says")?,
            (Some(style), _) => writeln!(out, "net args  {style}, as its symbols show")?,
            (None, _) if self.devices.iter().any(|device| device.kind == "net") => {
                writeln!(out, "net args  unknown; nabla run --net-config says it")?;
            }
            (None, _) => {}
        }
        self.write_segments(out)?;
        for (i, warning) in self.warnings.iter().enumerate() {
            writeln!(
                out,
                "{:<9} {}",
                if i == 0 { "warnings" } else { "" },
                output::one_line(&warning.message)
            )?;
        }
        Ok(())
    }

    fn write_devices(&self, out: &mut String) -> std::fmt::Result {
        if self.devices.is_empty() {
            return writeln!(out, "devices   none");
        }
        writeln!(out, "devices   INDEX  KIND   NAME")?;
        for Device { index, name, kind } in &self.devices {
            writeln!(out, "          {index:>5}  {kind:<5}  {}", output::one_line(name))?;
        }
        Ok(())
    }

    fn write_segments(&self, out: &mut String) -> std::fmt::Result {
        let rows: Vec<[String; 6]> = self
            .segments
            .iter()
            .map(|segment| {
                [
                    segment.index.to_string(),
                    format!("{}..{}", segment.start, segment.end),
                    format!("{:#x}", segment.memory_size),
                    format!("{:#x}", segment.file_size),
                    format!("{:#x}", segment.file_offset),
                    segment.permissions.clone(),
                ]
            })
            .collect();
        let heads = ["INDEX", "ADDRESS", "SIZE", "IN FILE", "AT OFFSET", "ALLOWS"];
        let width = |column: usize| {
            rows.iter().map(|row| row[column].len()).chain([heads[column].len()]).max().unwrap_or(0)
        };
        let widths: [usize; 6] = std::array::from_fn(width);
        let mut line = |first: &str, cells: [&str; 6]| {
            let [index, address, size, in_file, offset, allows] = cells;
            let [w0, w1, w2, w3, w4, _] = widths;
            writeln!(
                out,
                "{first:<9} {index:>w0$}  {address:<w1$}  {size:>w2$}  {in_file:>w3$}  {offset:>w4$}  {allows}"
            )
        };
        line("segments", heads)?;
        for row in &rows {
            line("", row.each_ref().map(String::as_str))?;
        }
        Ok(())
    }
}

/// A stable name for a kind of warning.
fn warning_kind(warning: &Warning) -> &'static str {
    match warning {
        Warning::WritableExecutable { .. } => "writable-executable",
        Warning::OddHeader(_) => "odd-header",
        Warning::HostExecutable => "host-executable",
        Warning::DuplicateNote => "duplicate-note",
        Warning::DeviceName(_) => "device-name",
        Warning::DuplicateDevice(_) => "duplicate-device",
        Warning::UnknownDevice(..) => "unknown-device",
        _ => "other",
    }
}
