//! The report's member `counters`.

use super::report::nanoseconds;
use nabla_monitor::Counters;
use serde::Serialize;

/// See docs/cli.md.
#[derive(Debug, Serialize)]
pub struct CountersJson {
    exits: Exits,
    hypercalls: Hypercalls,
    console_bytes: u64,
    devices: Vec<Device>,
    time_in_guest_ns: u64,
    time_in_host_ns: u64,
    time_waiting_ns: u64,
}

#[derive(Debug, Serialize)]
struct Exits {
    hypercalls: u64,
    exceptions: u64,
    interruptions: u64,
    others: u64,
}

#[derive(Debug, Serialize)]
struct Hypercalls {
    walltime: u64,
    puts: u64,
    poll: u64,
    block_write: u64,
    block_read: u64,
    net_write: u64,
    net_read: u64,
    halt: u64,
}

#[derive(Debug, Serialize)]
struct Device {
    name: String,
    reads: u64,
    writes: u64,
    bytes_read: u64,
    bytes_written: u64,
    errors: u64,
}

impl From<Counters> for CountersJson {
    fn from(counters: Counters) -> Self {
        let Counters { exits, hypercalls: calls, .. } = counters;
        let device = |device: nabla_monitor::DeviceCounters| Device {
            name: device.name,
            reads: device.reads,
            writes: device.writes,
            bytes_read: device.bytes_read,
            bytes_written: device.bytes_written,
            errors: device.errors,
        };
        Self {
            exits: Exits {
                hypercalls: exits.hypercalls,
                exceptions: exits.exceptions,
                interruptions: exits.interruptions,
                others: exits.others,
            },
            hypercalls: Hypercalls {
                walltime: calls.walltime,
                puts: calls.puts,
                poll: calls.poll,
                block_write: calls.block_write,
                block_read: calls.block_read,
                net_write: calls.net_write,
                net_read: calls.net_read,
                halt: calls.halt,
            },
            console_bytes: counters.console_bytes,
            devices: counters.devices.into_iter().map(device).collect(),
            time_in_guest_ns: nanoseconds(counters.time_in_guest),
            time_in_host_ns: nanoseconds(counters.time_in_host),
            time_waiting_ns: nanoseconds(counters.time_waiting),
        }
    }
}
