//! Networks as engines and hostile neighbours make them: what the kernel's own stack would do there, the guest does.

use crate::{
    Outcome, nabla,
    net::{assert_served, host, serve},
    outcome,
};
use nabla_net::{Link, Network, Owned, TapOptions, VethPair};
use nabla_testkit::{example, need};
use std::{
    fs,
    net::{Ipv4Addr, SocketAddrV4, TcpStream},
    os::fd::{AsFd, AsRawFd},
    process::Command,
    time::Duration,
};

/// A host with `vh`, and a container with `eth0`, which has these addresses.
struct Pair {
    host: Network,
    container: Network,
    _pair: Owned<VethPair>,
}

impl Pair {
    fn new(host_address: Option<&str>, address: &str) -> Self {
        let (host, container) = (host(), Network::isolated().unwrap());
        let pair = host.create_veth("vh", "eth0").unwrap();
        host.move_link("eth0", &container).unwrap();
        host.set_up("vh").unwrap();
        container.set_up("eth0").unwrap();
        if let Some(address) = host_address {
            host.add_address("vh", address.parse().unwrap()).unwrap().keep();
        }
        container.add_address("eth0", address.parse().unwrap()).unwrap().keep();
        Self { host, container, _pair: pair }
    }

    fn adopt(&self) -> String {
        let descriptor = self.container.namespace().as_fd().as_raw_fd();
        format!("adopt=eth0,netns=/proc/{}/fd/{descriptor}", std::process::id())
    }
}

fn ip(network: &Network, words: &str) {
    let run = || Command::new("ip").args(words.split(' ')).output();
    let output = network.namespace().run(run).unwrap().unwrap();
    assert!(output.status.success(), "ip {words}: {}", String::from_utf8_lossy(&output.stderr));
}

fn set(network: &Network, setting: &str) {
    network.namespace().run(|| fs::write(format!("/proc/sys/net/ipv4/{setting}"), "1")).unwrap().unwrap();
}

#[test]
fn node_that_asks_from_another_address_is_answered() {
    if !(need::tap() && need::program("ip")) {
        return;
    }
    // As on a node of Calico: no address on its end, it answers for a gateway that nobody has, and asks from its uplink's.
    let Pair { host, container, .. } = &Pair::new(None, "10.9.0.2/32");
    let pair = Pair {
        host: host.clone(),
        container: container.clone(),
        _pair: host.create_veth("up0", "up1").unwrap(),
    };
    for words in [
        "addr add 10.0.0.5/24 dev up0",
        "link set up0 up",
        "link set up1 up",
        "route add default via 10.0.0.1 dev up0",
        "route add 10.9.0.2/32 dev vh",
    ] {
        ip(host, words);
    }
    set(host, "conf/vh/proxy_arp");
    set(host, "ip_forward");
    ip(container, "route add 169.254.1.1 dev eth0 scope link");
    ip(container, "route add default via 169.254.1.1 dev eth0");
    let running = serve(host, &example("httpd"), &["--net", &pair.adopt()], |_| {});
    assert_served(host, "10.9.0.2", 80);
    running.end("-INT");
}

#[test]
fn clients_behind_routes_of_every_form_are_served() {
    if !(need::tap() && need::program("ip")) {
        return;
    }
    let pair = Pair::new(Some("10.9.0.1/24"), "10.9.0.2/24");
    let Pair { host, container, .. } = &pair;
    ip(host, "addr add 10.9.0.3/24 dev vh");
    ip(host, "addr add 192.0.2.1/32 dev lo");
    set(host, "conf/vh/proxy_arp");
    // Clients have an address that the guest reaches by its routes only.
    ip(host, "route add 10.9.0.2/32 dev vh src 192.0.2.1");
    for route in [
        "default dev eth0",
        "default nexthop via 10.9.0.1 dev eth0 nexthop via 10.9.0.3 dev eth0",
        "192.0.2.0/24 via 10.9.0.1",
    ] {
        ip(container, &format!("route add {route}"));
        let running = serve(host, &example("httpd"), &["--net", &pair.adopt()], |_| {});
        assert_served(host, "10.9.0.2", 80);
        running.end("-INT");
        ip(container, &format!("route del {route}"));
    }
}

#[test]
fn what_a_form_cannot_say_is_named_in_a_warning() {
    if !(need::tap() && need::program("ip")) {
        return;
    }
    let pair = Pair::new(None, "10.9.0.2/24");
    ip(&pair.container, "route add 192.0.2.0/24 via 10.9.0.1");
    let options = ["--net", &pair.adopt(), "--net-config", "mirage"];
    let mut running = serve(&pair.host, &example("httpd"), &options, |_| {});
    let warning = running.next_line();
    assert!(warning.contains("not told the route to 192.0.2.0/24 through 10.9.0.1"), "{warning}");
    running.end("-INT");
}

#[test]
fn half_open_connections_keep_nobody_out() {
    if !need::tap() {
        return;
    }
    let network = host();
    let running =
        serve(&network, &example("httpd"), &["--net", "new,host=10.77.0.1/24,guest=10.77.0.2"], |_| {});
    assert_served(&network, "10.77.0.2", 80);
    network.namespace().run(|| send_syns([10, 77, 0, 2].into(), 400)).unwrap();
    assert_served(&network, "10.77.0.2", 80);
    running.end("-INT");
}

/// Begins connections to port 80 from addresses that nobody has.
fn send_syns(target: Ipv4Addr, count: u16) {
    use rustix::net::{AddressFamily, SendFlags, SocketType, ipproto, sendto, socket};
    let socket = socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::RAW)).unwrap();
    let sum = |bytes: &[u8]| {
        let words = bytes.chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
        let sum = words.sum::<u32>();
        let sum = (sum & 0xffff) + (sum >> 16);
        !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap()
    };
    for number in 0..count {
        let [a, b, c, _] = target.octets();
        let source = [a, b, c, u8::try_from(number % 200).unwrap() + 10];
        let mut tcp = [0; 20];
        tcp[..2].copy_from_slice(&(1024 + number).to_be_bytes());
        tcp[3] = 80;
        tcp[12..16].copy_from_slice(&[0x50, 0x02, 0xff, 0xff]);
        let pseudo = [&source[..], &target.octets(), &[0, 6, 0, 20], &tcp].concat();
        tcp[16..18].copy_from_slice(&sum(&pseudo).to_be_bytes());
        // The kernel fills in length and checksum.
        let ip = [&[0x45, 0, 0, 0, 0, 0, 0, 0, 64, 6, 0, 0][..], &source, &target.octets()].concat();
        sendto(&socket, &[ip, tcp.to_vec()].concat(), SendFlags::empty(), &SocketAddrV4::new(target, 0))
            .unwrap();
    }
}

#[test]
fn guest_ends_when_its_tap_is_deleted() {
    if !need::tap() {
        return;
    }
    for guest in crate::net::guests() {
        let network = host();
        let tap: Link = network.create_persistent_tap(&TapOptions::new().name("tap0")).unwrap().keep();
        network.add_address("tap0", "10.6.0.1/24".parse().unwrap()).unwrap().keep();
        network.set_up("tap0").unwrap();
        let running = serve(&network, &guest, &["--net", "tap0,address=10.6.0.2/24"], |_| {});
        assert_served(&network, "10.6.0.2", 80);
        // A tap that is down comes back.
        network.set_down("tap0").unwrap();
        network.set_up("tap0").unwrap();
        assert_served(&network, "10.6.0.2", 80);
        network.delete_link(&tap.name).unwrap();
        assert_ne!(running.wait().status, 0);
    }
}

/// `nabla net` inside of a namespace.
fn net(network: &Network, words: &[&str]) -> Outcome {
    let mut command = nabla();
    command.arg("net").args(words);
    network.namespace().run(move || outcome(&mut command)).unwrap()
}

#[test]
fn taps_in_use_are_deleted_by_force_only() {
    if !need::tap() {
        return;
    }
    let network = host();
    let bridge = network.create_bridge("br0").unwrap();
    assert_eq!(net(&network, &["create", "tap0", "--bridge", "br0"]).status, 0);
    bridge.keep();
    let opened = network.open_tap("tap0").unwrap();
    for name in ["tap0", "br0"] {
        let refused = net(&network, &["delete", name]);
        assert!(refused.status == 125 && refused.stderr.contains("tap 'tap0' is in use"), "{refused:?}");
    }
    assert_eq!(net(&network, &["delete", "tap0", "--force"]).status, 0);
    drop(opened);
    assert_eq!(net(&network, &["delete", "br0"]).status, 0);
}

#[test]
fn names_of_interfaces_do_not_reach_the_terminal_as_they_are() {
    if !need::tap() {
        return;
    }
    let network = host();
    let name = "a\x1b[2Jb\u{202e}";
    network.create_bridge(name).unwrap().keep();
    let listed = net(&network, &["list"]);
    assert!(listed.stdout.contains("a\\u{1b}[2Jb\\u{202e}"), "{listed:?}");
    assert!(!listed.stdout.contains('\x1b') && !listed.stdout.contains('\u{202e}'));
    // Of a process that is gone: what gc tells.
    let owner = nabla_net::Owner::this_process().unwrap().to_string();
    let (start, _) = owner.rsplit_once(':').unwrap();
    let alias = format!("{start}:1");
    let words = ["link", "set", name, "alias", &alias];
    let run = || Command::new("ip").args(words).status();
    assert!(network.namespace().run(run).unwrap().unwrap().success());
    let collected = net(&network, &["gc", "--netns", "/proc/self/ns/net"]);
    assert!(collected.stdout.contains("a\\u{1b}[2Jb\\u{202e}: deleted"), "{collected:?}");
    let refused = net(&network, &["delete", "no\x1b[2J"]);
    assert!(refused.status == 125 && !refused.stderr.contains('\x1b'), "{refused:?}");
}

#[test]
fn few_descriptors_are_enough_for_cleaning_up_many_namespaces() {
    if !need::tap() {
        return;
    }
    let networks: Vec<_> = (0..40).map(|_| Network::isolated().unwrap()).collect();
    let mut sleepers: Vec<_> = networks
        .iter()
        .map(|network| {
            network.namespace().run(|| Command::new("sleep").arg("1000").spawn()).unwrap().unwrap()
        })
        .collect();
    // Something in the last of them, of a process that is gone.
    let owner = nabla_net::Owner::this_process().unwrap().to_string();
    let alias = format!("{}:1", owner.rsplit_once(':').unwrap().0);
    networks[39].create_bridge("left").unwrap().keep();
    ip(&networks[39], &format!("link set left alias {alias}"));
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 16; exec \"$0\" net gc", env!("CARGO_BIN_EXE_nabla")]);
    let collected = outcome(&mut command);
    for sleeper in &mut sleepers {
        let _ = sleeper.kill();
        let _ = sleeper.wait();
    }
    assert!(collected.status == 0 && collected.stdout.contains("left: deleted"), "{collected:?}");
}

#[test]
fn idle_connections_keep_nobody_out() {
    if !need::tap() {
        return;
    }
    let network = host();
    let options = ["--net", "new,host=10.78.0.1/24,guest=10.78.0.2", "--mem", "32M"];
    let running = serve(&network, &example("httpd"), &options, |_| {});
    assert_served(&network, "10.78.0.2", 80);
    let connect = || TcpStream::connect_timeout(&([10, 78, 0, 2], 80).into(), Duration::from_secs(10));
    // More than the guest has memory for.
    let idle: Vec<_> = network.namespace().run(|| (0..300).map(|_| connect().unwrap()).collect()).unwrap();
    assert_served(&network, "10.78.0.2", 80);
    drop::<Vec<TcpStream>>(idle);
    running.end("-INT");
}
