//! What `-v` shows.

use std::io;
use tracing::level_filters::LevelFilter;

/// Logs to standard error from now on: nothing for 0, and from 1 on more and more.
pub fn init(verbosity: u8) {
    let level = match verbosity {
        0 => return,
        1 => LevelFilter::INFO,
        2 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    tracing_subscriber::fmt().with_max_level(level).with_writer(io::stderr).without_time().init();
}
