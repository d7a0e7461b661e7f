//! `nabla iso extract`.

use super::image;
use crate::output;
use clap::Args;
use indicatif::{HumanBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};
use nabla_iso::Extractor;
use std::{
    io::{self, IsTerminal},
    ops::ControlFlow,
    path::PathBuf,
};

const EXAMPLES: &str = "\
Examples:
  nabla iso extract rootfs.iso rootfs
  # a small image that is known to unpack to much
  nabla iso extract sparse.iso rootfs --limit 100G

The directory appears when everything is in it. As root, owners are set and devices made; otherwise devices are left \
out, and files are yours, without set-user-ID bits.

Exit status: 0, or 125 when there is no directory.";

/// Arguments of `nabla iso extract`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ExtractArgs {
    /// The image.
    image: PathBuf,

    /// The directory to make; it must not exist, or be empty.
    directory: PathBuf,

    /// Fail before more than this is taken on the disk, such as 10G [default: 16 times the image and 64M].
    #[arg(long, value_name = "SIZE", value_parser = size)]
    limit: Option<u64>,

    /// Do not set owners, even as root.
    #[arg(long)]
    no_owner: bool,

    /// Print nothing but errors.
    #[arg(short, long)]
    quiet: bool,
}

/// Unpacks an image.
pub fn main(args: &ExtractArgs) -> anyhow::Result<u8> {
    let volume = image::open(&args.image)?;
    let bar = ProgressBar::with_draw_target(
        None,
        if args.quiet || !io::stderr().is_terminal() {
            ProgressDrawTarget::hidden()
        } else {
            ProgressDrawTarget::stderr_with_hz(10)
        },
    );
    if let Ok(style) =
        ProgressStyle::with_template("{bar:32} {bytes} of about {total_bytes}, {msg} ({bytes_per_sec})")
    {
        bar.set_style(style);
    }
    let shown = bar.clone();
    let mut extractor = Extractor::new().progress(move |progress| {
        if !shown.is_hidden() {
            shown.set_message(format!("{} entries", progress.files));
            // Holes and files that share contents can make it more.
            shown.set_length(progress.bytes_total.max(progress.bytes));
            shown.set_position(progress.bytes);
        }
        ControlFlow::Continue(())
    });
    if let Some(limit) = args.limit {
        extractor = extractor.limit(limit);
    }
    if args.no_owner {
        extractor = extractor.owners(false);
    }
    let result = extractor.extract(&volume, &args.directory);
    bar.finish_and_clear();
    let summary = match result {
        Err(error @ nabla_iso::Error::Bomb { .. }) => {
            return Err(anyhow::anyhow!("{error} (--limit SIZE)"));
        }
        result => result?,
    };
    if !args.quiet {
        for warning in &summary.warnings {
            output::complain(&output::one_line(&format!("nabla: warning: {warning}")));
        }
        let place = args.directory.display();
        let line = format!("{place}: {} entries, {} of files", summary.entries, HumanBytes(summary.bytes));
        output::print(format!("{}\n", output::one_line(&line)).as_bytes())?;
    }
    Ok(0)
}

fn size(text: &str) -> Result<u64, String> {
    let size: Result<nabla_core::ByteSize, nabla_core::ParseByteSizeError> = text.parse();
    size.map(nabla_core::ByteSize::as_u64).map_err(|error| error.to_string())
}
