//! Counting what a guest does. One thread counts, others may look at any time. What is done with devices is counted by
//! the thread that serves the network ring, too.

use crate::counters::{Counters, DeviceCounters, Exits, Hypercalls};
use nabla_core::{
    Manifest,
    abi::hvt::{Hypercall, R_AGAIN, R_OK},
};
use std::{
    arch::x86_64::_rdtsc,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// One number. Where only the guest's thread adds to it, a plain store will do.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, number: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(number), Relaxed);
    }

    /// For what several threads count.
    fn add_shared(&self, number: u64) {
        self.0.fetch_add(number, Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Of a device.
#[derive(Debug, Default)]
struct Device {
    name: String,
    reads: Counter,
    writes: Counter,
    bytes_read: Counter,
    bytes_written: Counter,
    errors: Counter,
}

/// What was done with a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    Read,
    Write,
}

/// All of them.
#[derive(Debug)]
pub struct Tally {
    pub hypercalls: Counter,
    pub exceptions: Counter,
    pub interruptions: Counter,
    pub others: Counter,
    pub console_bytes: Counter,
    /// In ticks of the time stamp counter.
    pub guest_ticks: Counter,
    pub host_ticks: Counter,
    pub wait_ticks: Counter,
    by_number: [Counter; 9],
    /// By the index in the manifest.
    devices: Vec<Option<Device>>,
    /// Ticks in a second.
    frequency: u64,
}

/// Now, in ticks.
pub fn ticks() -> u64 {
    // SAFETY: every processor of the target has the instruction.
    unsafe { _rdtsc() }
}

impl Tally {
    /// `frequency` is that of the time stamp counter in Hz.
    pub fn new(manifest: &Manifest, frequency: u64) -> Self {
        let mut devices = Vec::new();
        for device in manifest.devices() {
            devices.resize_with(devices.len().max(device.index + 1), || None);
            devices[device.index] = Some(Device { name: device.name.to_string(), ..Device::default() });
        }
        Self {
            hypercalls: Counter::default(),
            exceptions: Counter::default(),
            interruptions: Counter::default(),
            others: Counter::default(),
            console_bytes: Counter::default(),
            guest_ticks: Counter::default(),
            host_ticks: Counter::default(),
            wait_ticks: Counter::default(),
            by_number: Default::default(),
            devices,
            frequency,
        }
    }

    pub fn hypercall(&self, call: Hypercall) {
        self.hypercalls.add(1);
        if let Some(counter) = self.by_number.get(call as usize) {
            counter.add(1);
        }
    }

    /// A call to a device, that moved as many bytes and returned this.
    pub fn device(&self, handle: u64, direction: Direction, bytes: u64, ret: i32) {
        let index = usize::try_from(handle).unwrap_or(usize::MAX);
        let Some(Some(device)) = self.devices.get(index) else { return };
        let (calls, amount) = match direction {
            Direction::Read => (&device.reads, &device.bytes_read),
            Direction::Write => (&device.writes, &device.bytes_written),
        };
        match ret {
            R_OK => {
                calls.add_shared(1);
                amount.add_shared(bytes);
            }
            R_AGAIN => {}
            _ => device.errors.add_shared(1),
        }
    }

    /// As others see them.
    pub fn counters(&self) -> Counters {
        let call = |call: Hypercall| self.by_number[call as usize].get();
        let time = |counter: &Counter| {
            let nanos = u128::from(counter.get()) * 1_000_000_000 / u128::from(self.frequency.max(1));
            Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
        };
        Counters {
            exits: Exits {
                hypercalls: self.hypercalls.get(),
                exceptions: self.exceptions.get(),
                interruptions: self.interruptions.get(),
                others: self.others.get(),
            },
            hypercalls: Hypercalls {
                walltime: call(Hypercall::Walltime),
                puts: call(Hypercall::Puts),
                poll: call(Hypercall::Poll),
                block_write: call(Hypercall::BlockWrite),
                block_read: call(Hypercall::BlockRead),
                net_write: call(Hypercall::NetWrite),
                net_read: call(Hypercall::NetRead),
                halt: call(Hypercall::Halt),
            },
            console_bytes: self.console_bytes.get(),
            devices: self
                .devices
                .iter()
                .flatten()
                .map(|device| DeviceCounters {
                    name: device.name.clone(),
                    reads: device.reads.get(),
                    writes: device.writes.get(),
                    bytes_read: device.bytes_read.get(),
                    bytes_written: device.bytes_written.get(),
                    errors: device.errors.get(),
                })
                .collect(),
            time_in_guest: time(&self.guest_ticks),
            // Waits are part of what was counted there.
            time_in_host: time(&self.host_ticks).saturating_sub(time(&self.wait_ticks)),
            time_waiting: time(&self.wait_ticks),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nabla_core::DeviceKind;

    #[test]
    fn devices_are_counted_by_their_handle_and_strangers_are_not() {
        let manifest = Manifest::new([(DeviceKind::Block, "disk"), (DeviceKind::Net, "net")]).unwrap();
        let tally = Tally::new(&manifest, 1_000_000);
        tally.device(1, Direction::Read, 512, R_OK);
        tally.device(1, Direction::Write, 1024, R_OK);
        tally.device(2, Direction::Read, 99, R_AGAIN);
        tally.device(2, Direction::Write, 99, 3);
        for stranger in [0, 3, u64::MAX] {
            tally.device(stranger, Direction::Read, 1, R_OK);
        }
        tally.guest_ticks.add(2_500_000);
        tally.hypercall(Hypercall::Halt);
        let counters = tally.counters();
        let of = |name: &str| counters.devices.iter().find(|device| device.name == name).unwrap();
        let disk = DeviceCounters {
            name: "disk".to_owned(),
            reads: 1,
            writes: 1,
            bytes_read: 512,
            bytes_written: 1024,
            errors: 0,
        };
        assert_eq!(*of("disk"), disk);
        assert_eq!(*of("net"), DeviceCounters { name: "net".to_owned(), errors: 1, ..Default::default() });
        assert_eq!(counters.time_in_guest, Duration::from_millis(2500));
        assert_eq!((counters.exits.hypercalls, counters.hypercalls.halt), (1, 1));
    }
}
