//! ARP requests that smoltcp does not answer, and some that it must not.
//!
//! smoltcp answers those who ask from an address in one of its networks. Kernels answer everybody who asks for one of their
//! addresses: a router that asks from its uplink's address (as nodes of Calico do), and one that looks for duplicates. And
//! smoltcp takes every address that it was given for the guest's, also those that are there for a network's sake.

use alloc::vec::Vec;

use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr, IpCidr,
    Ipv4Address,
};

/// Bytes of a frame with an answer.
pub const FRAME: usize = 42;

/// What becomes of a frame.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is the stack's.
    Pass,
    /// Nobody sees it.
    Drop,
    /// This is sent, and nobody sees it.
    Answer([u8; FRAME]),
}

/// Addresses of an interface.
#[derive(Debug, Default)]
pub struct Addresses {
    /// Those that the guest has.
    pub own: Vec<IpCidr>,
    /// Those that the stack was given.
    pub stack: Vec<IpCidr>,
}

impl Addresses {
    /// Looks at a frame that was received.
    pub fn judge(&self, frame: &[u8], mac: [u8; 6]) -> Verdict {
        self.request(frame, EthernetAddress(mac)).unwrap_or(Verdict::Pass)
    }

    fn request(&self, frame: &[u8], mac: EthernetAddress) -> Option<Verdict> {
        let frame = EthernetFrame::new_checked(frame).ok()?;
        if frame.ethertype() != EthernetProtocol::Arp {
            return None;
        }
        let packet = ArpPacket::new_checked(frame.payload()).ok()?;
        let Ok(ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Request,
            source_hardware_addr: asking,
            source_protocol_addr: from,
            target_protocol_addr: wanted,
            ..
        }) = ArpRepr::parse(&packet)
        else {
            return None;
        };
        if !self.own.iter().any(|cidr| cidr.address() == wanted.into()) {
            return Some(Verdict::Drop);
        }
        if is_host(from) && self.stack.iter().any(|cidr| cidr.contains_addr(&from.into())) {
            return None;
        }
        let may_ask = asking.is_unicast() && (is_host(from) || from.is_unspecified());
        Some(if may_ask { Verdict::Answer(answer(mac, wanted, asking, from)) } else { Verdict::Drop })
    }
}

/// Whether somebody can have it.
fn is_host(address: Ipv4Address) -> bool {
    !(address.is_unspecified() || address.is_broadcast() || address.is_multicast() || address.is_loopback())
}

fn answer(
    mac: EthernetAddress,
    own: Ipv4Address,
    to: EthernetAddress,
    to_address: Ipv4Address,
) -> [u8; FRAME] {
    let mut bytes = [0; FRAME];
    let mut frame = EthernetFrame::new_unchecked(&mut bytes[..]);
    EthernetRepr { src_addr: mac, dst_addr: to, ethertype: EthernetProtocol::Arp }.emit(&mut frame);
    let reply = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Reply,
        source_hardware_addr: mac,
        source_protocol_addr: own,
        target_hardware_addr: to,
        target_protocol_addr: to_address,
    };
    reply.emit(&mut ArpPacket::new_unchecked(frame.payload_mut()));
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: EthernetAddress = EthernetAddress([2, 0, 0, 0, 0, 1]);
    const ASKING: EthernetAddress = EthernetAddress([2, 0, 0, 0, 0, 2]);

    fn judge(from: [u8; 4], wanted: [u8; 4]) -> Verdict {
        let cidr =
            |[a, b, c, d]: [u8; 4], prefix| IpCidr::new(smoltcp::wire::IpAddress::v4(a, b, c, d), prefix);
        let own = alloc::vec![cidr([10, 9, 0, 2], 24)];
        let stack = alloc::vec![own[0], cidr([169, 254, 1, 0], 31)];
        let mut request = answer(ASKING, from.into(), EthernetAddress::BROADCAST, wanted.into());
        // The operation.
        request[21] = 1;
        Addresses { own, stack }.judge(&request, MAC.0)
    }

    #[test]
    fn requests_from_elsewhere_are_answered() {
        for from in [[10, 0, 0, 5], [0, 0, 0, 0]] {
            let expected = answer(MAC, [10, 9, 0, 2].into(), ASKING, from.into());
            assert_eq!(judge(from, [10, 9, 0, 2]), Verdict::Answer(expected), "{from:?}");
        }
    }

    #[test]
    fn requests_from_the_network_are_the_stacks() {
        assert_eq!(judge([10, 9, 0, 1], [10, 9, 0, 2]), Verdict::Pass);
        assert_eq!(judge([169, 254, 1, 1], [10, 9, 0, 2]), Verdict::Pass);
    }

    #[test]
    fn addresses_that_are_there_for_a_network_are_not_claimed() {
        assert_eq!(judge([169, 254, 1, 1], [169, 254, 1, 0]), Verdict::Drop);
        assert_eq!(judge([10, 9, 0, 1], [10, 9, 0, 3]), Verdict::Drop);
        for from in [[224, 0, 0, 1], [255, 255, 255, 255], [127, 0, 0, 1]] {
            assert_eq!(judge(from, [10, 9, 0, 2]), Verdict::Drop, "{from:?}");
        }
    }

    #[test]
    fn other_frames_are_the_stacks() {
        let addresses = Addresses::default();
        for length in 0..64 {
            let mut frame = [0; 64];
            frame[12..14].copy_from_slice(&[8, 6]);
            assert_eq!(addresses.judge(&frame[..length], MAC.0), Verdict::Pass);
        }
    }
}
