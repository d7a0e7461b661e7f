//! A network device as smoltcp wants devices to be.

use alloc::{boxed::Box, vec};

use smoltcp::{
    phy::{self, DeviceCapabilities, Medium},
    time::Instant,
};

use super::arp::{Addresses, Verdict};
use crate::Net;

/// Frames that are answered or dropped here before the stack gets to do something else.
const AT_ONCE: usize = 32;
/// Reads that fail one after the other, without a frame or silence in between: then the device is gone. A tap that is only
/// down has no frames, and a socket tells once that its interface went down.
const FAILURES_MAX: u32 = 16;

/// A network device for smoltcp. It has room for one frame each way.
#[derive(Debug)]
pub struct Device {
    net: Net,
    addresses: Option<Addresses>,
    failures: u32,
    received: Box<[u8]>,
    to_send: Box<[u8]>,
}

impl Device {
    /// The device `net`.
    #[must_use]
    pub fn new(net: Net) -> Self {
        let frame = || vec![0; net.mtu() + Net::HEADER_LEN].into_boxed_slice();
        Self { net, addresses: None, failures: 0, received: frame(), to_send: frame() }
    }

    /// Has ARP requests answered as a kernel does that has these addresses.
    pub(super) fn answer_for(&mut self, addresses: Addresses) {
        self.addresses = Some(addresses);
    }

    /// Whether the host has taken the device away, such as by deleting a tap.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.failures >= FAILURES_MAX
    }

    /// Reads a frame that is for the stack.
    fn read(&mut self) -> Option<usize> {
        for _ in 0..AT_ONCE {
            let length = match self.net.read(&mut self.received) {
                // A frame that is too long is none for the stack.
                Err(_) => {
                    self.failures = self.failures.saturating_add(1);
                    return None;
                }
                Ok(read) => {
                    self.failures = 0;
                    read?
                }
            };
            let frame = &self.received[..length];
            match self.addresses.as_ref().map(|addresses| addresses.judge(frame, self.net.mac())) {
                None | Some(Verdict::Pass) => return Some(length),
                Some(Verdict::Drop) => {}
                Some(Verdict::Answer(frame)) => {
                    let _ = self.net.write(&frame);
                }
            }
        }
        None
    }

    /// The network device.
    #[must_use]
    pub fn net(&self) -> &Net {
        &self.net
    }
}

impl phy::Device for Device {
    type RxToken<'a> = RxToken<'a>;
    type TxToken<'a> = TxToken<'a>;

    fn receive(&mut self, _now: Instant) -> Option<(RxToken<'_>, TxToken<'_>)> {
        let length = self.read()?;
        Some((RxToken(&self.received[..length]), TxToken { net: self.net, frame: &mut self.to_send }))
    }

    fn transmit(&mut self, _now: Instant) -> Option<TxToken<'_>> {
        Some(TxToken { net: self.net, frame: &mut self.to_send })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = self.received.len();
        capabilities
    }
}

/// A frame that has been received.
#[derive(Debug)]
pub struct RxToken<'a>(&'a [u8]);

impl phy::RxToken for RxToken<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

/// Room for a frame that is to be sent.
#[derive(Debug)]
pub struct TxToken<'a> {
    net: Net,
    frame: &'a mut [u8],
}

impl phy::TxToken for TxToken<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        let frame = &mut self.frame[..length];
        let result = f(frame);
        // What the host does not take is lost, as on any wire; the protocols above send it again.
        let _ = self.net.write(frame);
        result
    }
}
