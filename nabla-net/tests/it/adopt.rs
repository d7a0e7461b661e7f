//! Adopting what container engines prepare, in namespaces made by hand: a host with a bridge, the container whose interface
//! is adopted, and another container.

use crate::common::{ANSWER, Guest, Snapshot, http, ping, settle};
use nabla_net::{AdoptOptions, Cidr, Connection, Network, Owned, Route};
use nabla_testkit::need;
use std::{net::IpAddr, process::Command};

/// A host namespace with a bridge, and namespaces of containers on it.
struct Engine {
    host: Network,
    others: Vec<Network>,
}

const HOST: [&str; 2] = ["10.9.0.1/16", "fd00:9::1/64"];
const PEER: [&str; 2] = ["10.9.0.3/16", "fd00:9::3/64"];

fn cidr(text: &str) -> Cidr {
    text.parse().unwrap()
}

fn keep<T: Clone>(owned: Result<Owned<T>, nabla_net::Error>) {
    owned.unwrap().keep();
}

impl Engine {
    fn new(mtu: u32) -> Self {
        let host = Network::isolated().unwrap();
        keep(host.create_bridge("br0"));
        host.set_mtu("br0", mtu).unwrap();
        host.set_up("br0").unwrap();
        for address in HOST {
            keep(host.add_address("br0", cidr(address)));
        }
        let mut engine = Self { host, others: Vec::new() };
        let peer = engine.container();
        engine.connect(&peer, "eth0", mtu, &PEER);
        engine.others.push(peer);
        engine
    }

    fn container(&self) -> Network {
        let container = Network::isolated().unwrap();
        container.set_up("lo").unwrap();
        container
    }

    /// As engines do it: a cable from the bridge into the container.
    fn connect(&self, container: &Network, name: &str, mtu: u32, addresses: &[&str]) {
        let outside = Network::fresh_name();
        self.host.create_veth(&outside, name).unwrap().keep();
        self.host.move_link(name, container).unwrap();
        keep(self.host.attach(&outside, "br0"));
        self.host.set_mtu(&outside, mtu).unwrap();
        container.set_mtu(name, mtu).unwrap();
        self.host.set_up(&outside).unwrap();
        container.set_up(name).unwrap();
        settle(container, name);
        for address in addresses {
            keep(container.add_address(name, cidr(address)));
        }
    }
}

fn command(network: &Network, program: &str, words: &str) -> String {
    let run = || Command::new(program).args(words.split(' ')).output();
    let output = network.namespace().run(run).unwrap().unwrap();
    assert!(output.status.success(), "{program} {words}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn needs() -> bool {
    need::tap() && need::program("ping") && need::program("tc")
}

/// Has the bridge send what comes from a port back into it as well, as Podman's networks of CNI do.
fn set_hairpin(host: &Network) {
    let bridge = host.link("br0").unwrap().index;
    for port in host.links().unwrap().into_iter().filter(|link| link.controller == Some(bridge)) {
        let mut ip = Command::new("ip");
        ip.args(["link", "set", &port.name, "type", "bridge_slave", "hairpin", "on"]);
        assert!(host.namespace().run(|| ip.status()).unwrap().unwrap().success());
    }
}

/// Adopts, checks from the host and from the other container, releases, and checks that all is as before.
fn check(engine: &Engine, container: &Network, name: &str, guest: &str, size: usize) {
    for connection in [Connection::Redirect, Connection::Bridge] {
        let before = Snapshot::of(container);
        let adopted = container.adopt(&AdoptOptions::new(name).connection(connection)).unwrap();
        let (tap, config, guard) = adopted.into_parts();
        let running = Guest::start(tap, &config);
        let address: IpAddr = guest.parse().unwrap();
        for from in [&engine.host, &engine.others[0]] {
            ping(from, address, size);
            assert_eq!(http(from, address), ANSWER, "{connection:?}");
        }
        drop(running);
        guard.release().unwrap();
        assert_eq!(Snapshot::of(container), before, "{connection:?}");
    }
}

#[test]
fn interface_with_gateway_is_adopted() {
    if !needs() {
        return;
    }
    let engine = Engine::new(1500);
    let container = engine.container();
    engine.connect(&container, "eth0", 1500, &["10.9.0.2/16", "fd00:9::2/64"]);
    let link = container.link("eth0").unwrap();
    keep(container.add_route(Route::default_through([10, 9, 0, 1].into(), link.index)));

    let adopted = container.adopt(&AdoptOptions::new("eth0").tap_name("guest0")).unwrap();
    let config = adopted.config();
    assert_eq!((config.mac, config.mtu), (link.mac, Some(1500)));
    assert_eq!(config.addresses, [cidr("10.9.0.2/16"), cidr("fd00:9::2/64")]);
    assert_eq!(config.gateway_v4(), Some([10, 9, 0, 1].into()));
    assert_eq!(config.gateway_v6(), None);
    assert_eq!(container.link("guest0").unwrap().mtu, 1500);
    let error = container.adopt(&AdoptOptions::new("eth0")).unwrap_err();
    assert!(matches!(error.kind, nabla_net::ErrorKind::Busy), "{error}");
    adopted.release().unwrap();
    assert!(container.link("guest0").is_err());

    check(&engine, &container, "eth0", "10.9.0.2", 1472);
    check(&engine, &container, "eth0", "fd00:9::2", 1000);
}

#[test]
fn interface_behind_a_bridge_in_hairpin_mode_is_adopted() {
    if !(needs() && need::program("ip")) {
        return;
    }
    let engine = Engine::new(1500);
    let container = engine.container();
    engine.connect(&container, "eth0", 1500, &["10.9.0.2/16"]);
    set_hairpin(&engine.host);
    // A host that knows the MAC address does not ask for it, so the guest must ask for the host's by a broadcast.
    ping(&engine.host, [10, 9, 0, 2].into(), 56);
    check(&engine, &container, "eth0", "10.9.0.2", 56);
}

#[test]
fn interface_whose_changes_are_announced_is_adopted() {
    if !needs() {
        return;
    }
    let engine = Engine::new(1500);
    let container = engine.container();
    engine.connect(&container, "eth0", 1500, &["10.9.0.2/16"]);
    // As CNI's bridge plugin does it: a neighbour that knows the container is told when its MAC address changes.
    let setting = "/proc/sys/net/ipv4/conf/eth0/arp_notify";
    container.namespace().run(|| std::fs::write(setting, "1")).unwrap().unwrap();
    ping(&engine.host, [10, 9, 0, 2].into(), 56);
    check(&engine, &container, "eth0", "10.9.0.2", 56);
    let after = container.namespace().run(|| std::fs::read_to_string(setting)).unwrap().unwrap();
    assert_eq!(after.trim(), "1");
}

#[test]
fn several_addresses_are_all_the_guests() {
    if !needs() {
        return;
    }
    let engine = Engine::new(1500);
    let container = engine.container();
    engine.connect(&container, "eth0", 1500, &["10.9.0.2/16", "10.9.0.20/16"]);
    check(&engine, &container, "eth0", "10.9.0.2", 56);
    check(&engine, &container, "eth0", "10.9.0.20", 56);
}

#[test]
fn host_address_with_a_gateway_on_the_link_is_adopted() {
    if !needs() {
        return;
    }
    // As Calico does it: no bridge, the host routes to the container and answers for a gateway that nobody has.
    let engine = Engine::new(1500);
    let container = engine.container();
    let host = &engine.host;
    host.create_veth("cali0", "eth0").unwrap().keep();
    host.move_link("eth0", &container).unwrap();
    host.set_up("cali0").unwrap();
    keep(host.add_address("cali0", cidr("169.254.1.1/32")));
    let outside = host.link("cali0").unwrap().index;
    keep(host.add_route(Route::direct(cidr("10.9.7.2/32"), outside)));
    let write = |path: &str| std::fs::write(path, "1");
    host.namespace().run(|| write("/proc/sys/net/ipv4/ip_forward")).unwrap().unwrap();
    host.namespace().run(|| write("/proc/sys/net/ipv4/conf/br0/proxy_arp")).unwrap().unwrap();
    container.set_up("eth0").unwrap();
    settle(&container, "eth0");
    keep(container.add_address("eth0", cidr("10.9.7.2/32")));
    let inside = container.link("eth0").unwrap().index;
    keep(container.add_route(Route::direct(cidr("169.254.1.1/32"), inside)));
    keep(container.add_route(Route::default_through([169, 254, 1, 1].into(), inside)));

    let adopted = container.adopt(&AdoptOptions::new("eth0")).unwrap();
    assert_eq!(adopted.config().addresses, [cidr("10.9.7.2/32")]);
    assert_eq!(adopted.config().gateway_v4(), Some([169, 254, 1, 1].into()));
    drop(adopted);
    check(&engine, &container, "eth0", "10.9.7.2", 1472);
}

#[test]
fn each_of_two_interfaces_is_adopted() {
    if !needs() {
        return;
    }
    let engine = Engine::new(1500);
    let container = engine.container();
    engine.connect(&container, "eth0", 1500, &["10.9.0.2/16"]);
    engine.connect(&container, "net1", 1500, &["10.9.0.4/16"]);
    let before = Snapshot::of(&container);
    let guests: Vec<_> = ["eth0", "net1"]
        .map(|name| container.adopt(&AdoptOptions::new(name)).unwrap().into_parts())
        .into_iter()
        .map(|(tap, config, guard)| (Guest::start(tap, &config), guard))
        .collect();
    for address in [[10, 9, 0, 2], [10, 9, 0, 4]] {
        assert_eq!(http(&engine.host, address.into()), ANSWER);
        ping(&engine.others[0], address.into(), 56);
    }
    drop(guests);
    assert_eq!(Snapshot::of(&container), before);
}

#[test]
fn ipv6_alone_is_adopted() {
    if !needs() {
        return;
    }
    let engine = Engine::new(1500);
    let container = engine.container();
    engine.connect(&container, "eth0", 1500, &["fd00:9::2/64"]);
    let link = container.link("eth0").unwrap().index;
    keep(container.add_route(Route::default_through("fd00:9::1".parse().unwrap(), link)));
    let adopted = container.adopt(&AdoptOptions::new("eth0")).unwrap();
    assert_eq!(adopted.config().addresses, [cidr("fd00:9::2/64")]);
    assert_eq!(adopted.config().gateway_v6(), Some("fd00:9::1".parse().unwrap()));
    assert_eq!(adopted.config().gateway_v4(), None);
    drop(adopted);
    check(&engine, &container, "eth0", "fd00:9::2", 1452);
}

#[test]
fn small_and_large_mtus_are_the_guests() {
    if !needs() {
        return;
    }
    for mtu in [1400_u16, 9000] {
        let engine = Engine::new(mtu.into());
        let container = engine.container();
        engine.connect(&container, "eth0", mtu.into(), &["10.9.0.2/16"]);
        let adopted = container.adopt(&AdoptOptions::new("eth0")).unwrap();
        assert_eq!(adopted.config().mtu, Some(mtu));
        drop(adopted);
        check(&engine, &container, "eth0", "10.9.0.2", usize::from(mtu) - 28);
    }
}

#[test]
fn without_an_interface_the_error_says_what_there_is() {
    if !needs() {
        return;
    }
    let engine = Engine::new(1500);
    let container = engine.container();
    let before = Snapshot::of(&container);
    assert_eq!(container.adoptable().unwrap(), []);
    let error = container.adopt(&AdoptOptions::new("eth0")).unwrap_err();
    assert!(error.to_string().contains("has no other one"), "{error}");
    let error = container.adopt(&AdoptOptions::new("lo")).unwrap_err();
    assert!(error.to_string().contains("no Ethernet interface"), "{error}");
    engine.connect(&container, "net0", 1500, &[]);
    let error = container.adopt(&AdoptOptions::new("eth0")).unwrap_err();
    assert!(error.to_string().contains("there is net0"), "{error}");
    container.set_down("net0").unwrap();
    let error = container.adopt(&AdoptOptions::new("net0")).unwrap_err();
    assert!(error.to_string().contains("it is down"), "{error}");
    container.delete_link("net0").unwrap();
    assert_eq!(Snapshot::of(&container), before);
}

#[test]
fn no_address_is_no_obstacle() {
    if !needs() {
        return;
    }
    let engine = Engine::new(1500);
    let container = engine.container();
    engine.connect(&container, "eth0", 1500, &[]);
    let adopted = container.adopt(&AdoptOptions::new("eth0")).unwrap();
    assert_eq!((adopted.config().addresses.len(), adopted.config().routes.len()), (0, 0));
}

#[test]
fn filters_of_others_stay() {
    if !needs() {
        return;
    }
    let engine = Engine::new(1500);
    let container = engine.container();
    engine.connect(&container, "eth0", 1500, &["10.9.0.2/16"]);
    let tc = |words: &str| command(&container, "tc", words);
    tc("qdisc add dev eth0 clsact");
    // Something that somebody else wants to see.
    tc(
        "filter add dev eth0 ingress pref 5 protocol ip u32 match ip dport 81 0xffff action mirred egress mirror dev lo",
    );
    let filters = || tc("filter show dev eth0 ingress");
    let before = (Snapshot::of(&container), filters());
    check(&engine, &container, "eth0", "10.9.0.2", 56);
    assert_eq!((Snapshot::of(&container), filters()), before);
}

#[test]
fn routes_of_every_form_are_the_guests() {
    if !(needs() && need::program("ip")) {
        return;
    }
    let engine = Engine::new(1500);
    let container = engine.container();
    engine.connect(&container, "eth0", 1500, &["10.9.0.2/16"]);
    let routes = |routes: &[&str]| {
        for route in routes {
            command(&container, "ip", &format!("route add {route}"));
        }
        let adopted = container.adopt(&AdoptOptions::new("eth0")).unwrap();
        let config = adopted.config();
        let told: Vec<_> = config.other_routes().map(|route| route.to_string()).collect();
        let gateway = config.gateway_v4().map(|gateway| gateway.to_string());
        for route in routes {
            command(&container, "ip", &format!("route del {route}"));
        }
        (gateway, told)
    };
    assert_eq!(routes(&["default dev eth0"]), (None, vec!["0.0.0.0/0".to_owned()]));
    let several = "default nexthop via 10.9.0.1 dev eth0 nexthop via 10.9.0.3 dev eth0";
    assert_eq!(routes(&[several]), (Some("10.9.0.1".to_owned()), vec![]));
    assert_eq!(routes(&["192.0.2.0/24 via 10.9.0.1"]), (None, vec!["192.0.2.0/24,10.9.0.1".to_owned()]));
    // That the gateway is on the link follows from its being the gateway.
    let calico = ["169.254.1.1 dev eth0", "default via 169.254.1.1 dev eth0"];
    assert_eq!(routes(&calico), (Some("169.254.1.1".to_owned()), vec![]));
    for words in ["rule add from 10.9.0.2 table 100 priority 77", "route add blackhole 203.0.113.0/24"] {
        command(&container, "ip", words);
    }
    let untold = container.adopt(&AdoptOptions::new("eth0")).unwrap().untold().to_vec();
    assert_eq!(untold, ["the rule of routing with priority 77", "the route to 203.0.113.0/24 (blackhole)"]);
    let mixed = ["192.0.2.0/24 via inet6 fe80::1 dev eth0"];
    assert_eq!(routes(&mixed), (None, vec!["192.0.2.0/24,fe80::1".to_owned()]));
}
