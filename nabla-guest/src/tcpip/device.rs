//! A network device as smoltcp wants devices to be.

use alloc::{boxed::Box, vec};

use smoltcp::{
    phy::{self, DeviceCapabilities, Medium},
    time::Instant,
};

use crate::Net;

/// A network device for smoltcp. It has room for one frame each way.
#[derive(Debug)]
pub struct Device {
    net: Net,
    received: Box<[u8]>,
    to_send: Box<[u8]>,
}

impl Device {
    /// The device `net`.
    #[must_use]
    pub fn new(net: Net) -> Self {
        let frame = || vec![0; net.mtu() + Net::HEADER_LEN].into_boxed_slice();
        Self { net, received: frame(), to_send: frame() }
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
        // A device that the host has taken away has no frames, and a frame that is too long is none for the stack.
        let length = self.net.read(&mut self.received).ok()??;
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
