//! What is printed when something fails, and the exit status for it.

use crate::output;
use nabla_core::{DeviceKind, ImageError, layout::MemoryError};
use nabla_monitor::{BlockErrorKind, DeviceError, Error, ErrorKind, TapErrorKind};
use std::path::Path;

/// Exit status when nabla itself failed, wrong usage included.
pub const FAILED: u8 = 125;
/// Exit status when the image exists and cannot be run.
pub const NOT_RUNNABLE: u8 = 126;
/// Exit status when the image does not exist.
pub const NOT_FOUND: u8 = 127;

/// Prints an error as one line and returns the exit status for it.
pub fn report(error: &anyhow::Error) -> u8 {
    let monitor = error.downcast_ref::<Error>();
    let network = error.downcast_ref::<nabla_net::Error>();
    let hint = monitor.and_then(|error| hint(error).or_else(|| error.advice()));
    let hint = hint.or_else(|| network.and_then(network_hint));
    let hint = hint.map_or_else(String::new, |hint| format!(" ({hint})"));
    output::complain(&output::one_line(&format!("nabla: {}{hint}", chain(error.as_ref()))));
    match monitor.map(Error::kind) {
        Some(ErrorKind::NotFound) => NOT_FOUND,
        Some(ErrorKind::NotRunnable) => NOT_RUNNABLE,
        Some(ErrorKind::Other) | None => FAILED,
    }
}

/// An error and what caused it, one after the other.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Which option helps.
fn hint(error: &Error) -> Option<String> {
    match error {
        Error::Device(DeviceError::NotAttached { kind, name }) => match kind {
            DeviceKind::Block => Some(format!("attach it with --disk {name}=PATH")),
            DeviceKind::Net => Some(format!("attach it with --net {name}=TAP, or --net {name}=new")),
            DeviceKind::Unknown(_) => None,
        },
        Error::Device(DeviceError::Ambiguous { kind, .. }) => match kind {
            DeviceKind::Block => Some("--disk NAME=PATH".to_owned()),
            DeviceKind::Net => Some("--net NAME=TAP".to_owned()),
            DeviceKind::Unknown(_) => None,
        },
        Error::WritableExecutable { .. } => Some("with --x-exec-heap".to_owned()),
        Error::Memory { source: MemoryError::TooSmall { minimum, .. }, .. } => {
            Some(format!("--mem {}", minimum.as_u64().div_ceil(1 << 20)))
        }
        Error::Memory { .. } => Some("--mem SIZE".to_owned()),
        Error::Image { source: ImageError::Unidentified, .. } => Some("with --abi ABI".to_owned()),
        Error::Image { source: ImageError::AbiMismatch { .. }, .. } => Some("leave out --abi".to_owned()),
        Error::Device(DeviceError::Block(error)) => match error.kind {
            BlockErrorKind::OpenForWriting { .. } | BlockErrorKind::Claimed => {
                Some("--disk PATH,ro".to_owned())
            }
            BlockErrorKind::Locked { shared: false } => {
                Some("--disk PATH,ro for every guest that uses it".to_owned())
            }
            BlockErrorKind::BlockSize { .. } | BlockErrorKind::Unaligned { .. } => {
                Some("--disk PATH,block-size=N".to_owned())
            }
            _ => None,
        },
        Error::Device(DeviceError::Net(error)) => match error.kind {
            TapErrorKind::Name => Some("--net NAME=TAP, or --net TAP for the guest's only one".to_owned()),
            _ => None,
        },
        _ => None,
    }
}

/// What a user can do who may not make networks, or has no /proc.
fn network_hint(error: &nabla_net::Error) -> Option<String> {
    if !Path::new("/proc/self").exists() {
        return Some("networks take /proc: mount -t proc proc /proc".to_owned());
    }
    let makes = matches!(error.operation, "create" | "adopt" | "redirect") && error.is_not_permitted();
    makes.then(|| {
        "or let root prepare a tap once, and use it: nabla net create tap0 --owner $USER --address 10.0.0.1/24; --net tap0"
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::anyhow;

    #[test]
    fn causes_follow_what_they_caused() {
        let error = anyhow!("no such file").context("cannot open 'x'").context("cannot start");
        assert_eq!(chain(error.as_ref()), "cannot start: cannot open 'x': no such file");
    }

    #[test]
    fn hints_name_the_option() {
        for (error, expected) in [
            (
                Error::Device(DeviceError::NotAttached { kind: DeviceKind::Block, name: "storage".into() }),
                "--disk storage=PATH",
            ),
            (
                Error::Device(DeviceError::NotAttached { kind: DeviceKind::Net, name: "service0".into() }),
                "--net service0=TAP",
            ),
            (
                Error::Device(DeviceError::Ambiguous {
                    kind: DeviceKind::Block,
                    declared: vec!["a".into(), "b".into()],
                }),
                "--disk NAME=PATH",
            ),
            (Error::WritableExecutable { path: "x".into(), index: 0 }, "--x-exec-heap"),
        ] {
            assert!(hint(&error).is_some_and(|hint| hint.contains(expected)), "{error}");
        }
    }
}
