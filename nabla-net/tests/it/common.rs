//! A guest for tests that need one: a thread with a network stack, which answers pings and speaks a line of HTTP.

use nabla_net::{MacAddress, NetConfig, Network, Tap};
use smoltcp::{
    iface::{Config, Interface, SocketSet},
    phy::{Medium, TunTapInterface, wait},
    socket::tcp,
    time::{Duration, Instant},
    wire::{EthernetAddress, HardwareAddress, IpAddress, IpCidr},
};
use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpStream},
    os::fd::{AsRawFd, IntoRawFd, OwnedFd},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

/// What it answers to any request.
pub const ANSWER: &str = "HTTP/1.0 200 OK\r\n\r\nguest";

/// A thread that is a guest. It ends when this is dropped, and closes its tap.
pub struct Guest {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Guest {
    pub fn start(tap: Tap, config: &NetConfig) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (config, in_thread) = (config.clone(), Arc::clone(&stop));
        let thread = thread::spawn(move || run(tap.into(), &config, &in_thread));
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn cidr(address: IpAddr, prefix: u8) -> IpCidr {
    IpCidr::new(IpAddress::from(address), prefix)
}

fn run(tap: OwnedFd, config: &NetConfig, stop: &AtomicBool) {
    // The descriptor belongs to the device from here on.
    let mtu = usize::from(config.mtu.unwrap_or(1500)) + 14;
    let mut device = TunTapInterface::from_fd(tap.into_raw_fd(), Medium::Ethernet, mtu).unwrap();
    let MacAddress(mac) = config.mac.unwrap_or(MacAddress([2, 0, 0, 0, 0, 9]));
    let hardware = HardwareAddress::Ethernet(EthernetAddress(mac));
    let mut interface = Interface::new(Config::new(hardware), &mut device, Instant::now());
    interface.update_ip_addrs(|addresses| {
        for address in &config.addresses {
            addresses.push(cidr(address.address(), address.prefix())).unwrap();
        }
        // The stack takes answers from its own networks only: the gateway gets one.
        for route in &config.routes {
            if let Some(IpAddr::V4(gateway)) = route.gateway
                && !config.addresses.iter().any(|address| address.contains(gateway.into()))
            {
                let other = std::net::Ipv4Addr::from_bits(gateway.to_bits() ^ 1);
                addresses.push(cidr(other.into(), 31)).unwrap();
            }
        }
    });
    if let Some(gateway) = config.gateway_v4() {
        interface.routes_mut().add_default_ipv4_route(gateway).unwrap();
    }
    if let Some(gateway) = config.gateway_v6() {
        interface.routes_mut().add_default_ipv6_route(gateway).unwrap();
    }
    let socket = || {
        let buffer = || tcp::SocketBuffer::new(vec![0; 65536]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        socket.listen(80).unwrap();
        socket
    };
    let mut sockets = SocketSet::new(vec![]);
    let handles: Vec<_> = (0..8).map(|_| sockets.add(socket())).collect();
    while !stop.load(Ordering::SeqCst) {
        let now = Instant::now();
        interface.poll(now, &mut device, &mut sockets);
        for &handle in &handles {
            let socket = sockets.get_mut::<tcp::Socket<'_>>(handle);
            if socket.can_recv() {
                let _ = socket.recv(|data| (data.len(), ()));
                let _ = socket.send_slice(ANSWER.as_bytes());
                socket.close();
            }
            if !socket.is_open() {
                socket.listen(80).unwrap();
            }
        }
        let delay = interface.poll_delay(Instant::now(), &sockets).unwrap_or(Duration::from_millis(20));
        let _ = wait(device.as_raw_fd(), Some(delay.min(Duration::from_millis(20))));
    }
}

/// Asks for a page from inside of a namespace.
pub fn http(from: &Network, address: IpAddr) -> String {
    let ask = || {
        let target = SocketAddr::new(address, 80);
        let mut stream = TcpStream::connect_timeout(&target, std::time::Duration::from_secs(10))?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok::<_, std::io::Error>(answer)
    };
    from.namespace().run(ask).unwrap().unwrap_or_else(|error| panic!("{address}: {error}"))
}

/// Pings from inside of a namespace, with this many bytes that may not be cut to pieces.
pub fn ping(from: &Network, address: IpAddr, size: usize) {
    let run = |count: &'static str, wait: &'static str| {
        move || {
            Command::new("ping")
                .args(["-n", "-c", count, "-i", "0.05", "-W", wait, "-M", "do", "-s", &size.to_string()])
                .arg(address.to_string())
                .output()
        }
    };
    // The guest's stack throws a packet away when it has to find its neighbour first.
    let answered = || from.namespace().run(run("1", "1")).unwrap().unwrap().status.success();
    assert!((0..10).any(|_| answered()), "{address} does not answer");
    let output = from.namespace().run(run("3", "10")).unwrap().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains(" 0% packet loss"), "{address}: {text}");
}

/// Waits for what the kernel does by itself, in its own time, after an interface was brought up: the carrier is noticed,
/// and IPv6 makes itself an address and a route.
pub fn settle(network: &Network, name: &str) {
    let setting = |setting: &str| {
        let path = format!("/proc/sys/net/ipv6/conf/{name}/{setting}");
        network.namespace().run(|| std::fs::read_to_string(path)).unwrap().unwrap_or_default()
    };
    let makes_address = setting("addr_gen_mode").trim() == "0" && setting("disable_ipv6").trim() == "0";
    let is_settled = || {
        let link = network.link(name).unwrap();
        let has_address =
            || network.addresses().unwrap().iter().any(|a| a.link == link.index && a.is_link_local);
        let is_local = |route: &nabla_net::Route| route.destination.to_string() == "fe80::/64";
        let has_route = || network.routes().unwrap().iter().any(|r| r.link == link.index && is_local(r));
        link.is_running && (!makes_address || has_address() && has_route())
    };
    while !is_settled() {
        thread::yield_now();
    }
}

/// Everything that a namespace has that can be compared.
#[derive(Debug, PartialEq)]
pub struct Snapshot {
    links: Vec<nabla_net::Link>,
    addresses: Vec<nabla_net::Address>,
    routes: Vec<nabla_net::Route>,
    queues: String,
}

impl Snapshot {
    pub fn of(network: &Network) -> Self {
        let queues = || Command::new("tc").args(["qdisc", "show"]).output();
        let queues = network.namespace().run(queues).unwrap().unwrap();
        Self {
            links: network.links().unwrap(),
            addresses: network.addresses().unwrap(),
            routes: network.routes().unwrap(),
            queues: String::from_utf8(queues.stdout).unwrap(),
        }
    }
}
