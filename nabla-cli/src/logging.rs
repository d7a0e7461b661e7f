//! What `-v` shows: once, the steps of what is done; twice, the values that they work with, too; three times, when
//! each happened and in which thread.

use std::io;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt::time::uptime;

/// Logs to standard error from now on. Nothing for 0.
pub fn init(verbosity: u8) {
    let level = match verbosity {
        0 => return,
        1 => LevelFilter::INFO,
        2 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    let logs = tracing_subscriber::fmt().with_max_level(level).with_writer(io::stderr);
    if level == LevelFilter::TRACE {
        logs.with_timer(uptime()).with_thread_ids(true).init();
    } else {
        logs.without_time().init();
    }
}
