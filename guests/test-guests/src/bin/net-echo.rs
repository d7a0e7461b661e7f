//! Answers ARP requests and pings for 10.0.0.2 on device "service0".
//!
//! `net-echo [COUNT]`: exits with 0 after COUNT answers, without one never. Prints "ready" with its MAC address
//! first, and a line for each answer.
#![no_std]
#![no_main]

use nabla_guest::{Error, Net, args, println, yield_forever};
use test_guests::number;

nabla_guest::entry!(main, net "service0");

const ADDRESS: [u8; 4] = [10, 0, 0, 2];
/// The longest frame that any interface has.
const FRAME_MAX: usize = 65536;

const TYPE_ARP: [u8; 2] = [0x08, 0x06];
const TYPE_IPV4: [u8; 2] = [0x08, 0x00];

fn main() -> Result<(), Error> {
    let net = Net::acquire("service0")?;
    let mac = net.mac();
    let mut left: u64 = args().next().map_or(u64::MAX, number);
    let mut buffer = [0; FRAME_MAX];
    println!(
        "ready {:02x}:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}",
        mac[0], mac[1], mac[2], mac[3], mac[4], mac[5]
    );
    while left > 0 {
        let Some(len) = net.read(&mut buffer)? else {
            let ready = yield_forever();
            assert!(ready.contains(&net));
            continue;
        };
        let frame = &mut buffer[..len];
        if let Some(what) = answer(frame, mac) {
            net.write(frame)?;
            println!("{what}");
            left -= 1;
        }
    }
    Ok(())
}

/// Turns a request into its answer, and tells what it was.
fn answer(frame: &mut [u8], mac: [u8; 6]) -> Option<&'static str> {
    let (header, payload) = frame.split_at_mut_checked(Net::HEADER_LEN)?;
    let what = match [header[12], header[13]] {
        TYPE_ARP => answer_arp(payload, mac),
        TYPE_IPV4 => answer_ping(payload),
        _ => None,
    }?;
    header.copy_within(6..12, 0);
    header[6..12].copy_from_slice(&mac);
    Some(what)
}

/// RFC 826: 8 bytes that say Ethernet, IPv4 and request, then the sender's addresses, then the target's.
fn answer_arp(packet: &mut [u8], mac: [u8; 6]) -> Option<&'static str> {
    let packet = packet.get_mut(..28)?;
    if packet[..8] != [0, 1, 8, 0, 6, 4, 0, 1] || packet[24..] != ADDRESS {
        return None;
    }
    packet[7] = 2;
    packet.copy_within(8..18, 18);
    packet[8..14].copy_from_slice(&mac);
    packet[14..18].copy_from_slice(&ADDRESS);
    Some("arp")
}

/// RFC 791 and 792: an IPv4 packet without fragments with an echo request in it.
fn answer_ping(packet: &mut [u8]) -> Option<&'static str> {
    let header_len = usize::from(packet.first()? & 0xf) * 4;
    let total = usize::from(u16::from_be_bytes([*packet.get(2)?, *packet.get(3)?]));
    let (header, message) = packet.get_mut(..total)?.split_at_mut_checked(header_len)?;
    let is_icmp = header.len() >= 20 && header[0] >> 4 == 4 && header[9] == 1 && header[16..20] == ADDRESS;
    let is_fragment = is_icmp && (header[6] & 0x3f, header[7]) != (0, 0);
    if !is_icmp || is_fragment || message.len() < 8 || message[..2] != [8, 0] {
        return None;
    }
    // Swapping the addresses does not change the header's checksum.
    header.copy_within(12..16, 16);
    header[12..16].copy_from_slice(&ADDRESS);
    message[..4].fill(0);
    let sum = checksum(message);
    message[2..4].copy_from_slice(&sum);
    Some("ping")
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let words = bytes.chunks(2).map(|pair| u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0)));
    let mut sum: u64 = words.sum();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    let [.., high, low] = (!sum).to_be_bytes();
    [high, low]
}
