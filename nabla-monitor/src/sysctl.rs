//! Settings of the kernel.

/// The number in `/proc/sys/NAME`; `None` when it cannot be read.
pub(crate) fn read(name: &str) -> Option<u64> {
    std::fs::read_to_string(format!("/proc/sys/{name}")).ok()?.trim().parse().ok()
}
