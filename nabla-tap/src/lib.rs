//! Tap devices, as a guest without offloads needs them.
//!
//! A [`Tap`] is an open tap: each read gives one Ethernet frame, each write sends one. Three things about a tap make a guest
//! lose frames, and none of them shows before it does. A [`Tap`] has none of them:
//!
//! * A header before each frame (`IFF_VNET_HDR`, or no `IFF_NO_PI`). It is switched off, or the descriptor is refused.
//! * Offloads that an earlier user switched on (`TUNSETOFFLOAD`), which stay with a persistent tap: frames larger than the
//!   MTU, and checksums that were not computed. They are switched off, and what the kernel says afterwards is checked.
//! * A blocking descriptor. It is made non-blocking.
//!
//! ```
//! # if !nabla_testkit::need::tap() { return Ok(()) }
//! # let _in_a_namespace = nabla_testkit::TestTap::new();
//! use nabla_tap::{Tap, TapErrorKind, TapOptions};
//!
//! let created = Tap::create(&TapOptions::new().name("tap7").persistent(true))?;
//! assert!(matches!(Tap::open("tap7").unwrap_err().kind, TapErrorKind::Busy));
//! drop(created);
//! let tap = Tap::open("tap7")?;
//! assert_eq!((tap.name(), tap.mtu()?), (Some("tap7"), Some(1500)));
//! # Ok::<(), nabla_tap::TapError>(())
//! ```

#![cfg_attr(docsrs, feature(doc_cfg))]
#![warn(clippy::unwrap_used)]

mod error;
mod ioctl;
mod options;
mod tap;

pub use crate::{
    error::{TapError, TapErrorKind},
    options::TapOptions,
    tap::Tap,
};

/// The program in the README is tested, too.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
