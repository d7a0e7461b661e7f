//! What is left of programs that are killed, and how it goes away.

use crate::common::{Snapshot, settle};
use nabla_net::{AdoptOptions, Connection, LeaseOptions, Leftover, Network, TapOptions};
use nabla_testkit::need;
use std::{
    env, fs,
    io::{BufRead, BufReader},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    process::{Child, Command, Stdio},
};

/// Runs one of the ignored tests of this file as a program of its own inside of a namespace, until it says that it is ready.
fn program(network: &Network, name: &str) -> Child {
    program_of(network, Command::new(env::current_exe().unwrap()), name)
}

fn program_of(network: &Network, mut command: Command, name: &str) -> Child {
    let run = || {
        command
            .args(["--exact", &format!("cleanup::{name}"), "--ignored", "--nocapture", "--test-threads", "1"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
    };
    let mut child = network.namespace().run(run).unwrap().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("ready")), "{name} did not get ready");
    child
}

fn wait_to_be_killed() {
    println!("\nready");
    let _ = std::io::stdin().read_line(&mut String::new());
}

#[test]
#[ignore = "a program for another test"]
fn program_that_adopts() {
    let network = Network::current().unwrap();
    let adopted = network.adopt(&AdoptOptions::new("eth0")).unwrap();
    wait_to_be_killed();
    drop(adopted);
}

#[test]
#[ignore = "a program for another test"]
fn program_that_adopts_by_a_bridge() {
    let network = Network::current().unwrap();
    let options = AdoptOptions::new("eth0").connection(Connection::Bridge);
    let adopted = network.adopt(&options).unwrap();
    wait_to_be_killed();
    drop(adopted);
}

#[test]
#[ignore = "a program for another test"]
fn program_that_makes_things() {
    let network = Network::current().unwrap();
    let made = (
        network.create_bridge("br0").unwrap(),
        network.create_veth("a", "b").unwrap(),
        network.create_tap(&TapOptions::new().name("tap0")).unwrap(),
        network.create_persistent_tap(&TapOptions::new().name("tap1")).unwrap(),
        network.lease(&LeaseOptions::new()).unwrap(),
        network.create_bridge("kept").unwrap().keep(),
    );
    wait_to_be_killed();
    drop(made);
}

#[test]
#[ignore = "a program for another test"]
fn program_without_rights() {
    let network = Network::current().unwrap();
    println!("\nerror: {}", network.create_bridge("br0").unwrap_err());
    println!("error: {}", network.add_address("lo", "10.0.0.1/8".parse().unwrap()).unwrap_err());
    println!("error: {}", network.open_tap("tap0").unwrap_err());
    println!("error: {}", nabla_net::Namespace::new().unwrap_err());
    println!("opened: {}", network.open_tap("tap1").is_ok());
    println!("ready");
}

fn container() -> Network {
    let network = Network::isolated().unwrap();
    network.create_veth("eth0", "peer").unwrap().keep();
    network.set_up("eth0").unwrap();
    network.set_up("peer").unwrap();
    settle(&network, "eth0");
    settle(&network, "peer");
    network.add_address("eth0", "10.9.0.2/16".parse().unwrap()).unwrap().keep();
    network
}

#[test]
fn interface_of_a_killed_guest_can_be_adopted_again() {
    if !(need::tap() && need::program("tc")) {
        return;
    }
    for name in ["program_that_adopts", "program_that_adopts_by_a_bridge"] {
        let network = container();
        let before = Snapshot::of(&network);
        let mut child = program(&network, name);
        assert!(network.adopt(&AdoptOptions::new("eth0")).is_err(), "{name}: it is alive");
        assert_eq!(network.collect_garbage().unwrap(), [], "{name}: it is alive");
        child.kill().unwrap();
        child.wait().unwrap();
        assert_ne!(Snapshot::of(&network), before, "{name}");

        network.adopt(&AdoptOptions::new("eth0")).unwrap().release().unwrap();
        network.collect_garbage().unwrap();
        assert_eq!(Snapshot::of(&network), before, "{name}");
    }
}

#[test]
fn interface_of_a_killed_container_can_be_adopted_again() {
    if !(need::tap() && need::program("tc") && need::program("unshare")) {
        return;
    }
    for name in ["program_that_adopts", "program_that_adopts_by_a_bridge"] {
        let network = container();
        let before = Snapshot::of(&network);
        // The first process of a process namespace, as in a container, and all of them when it is killed.
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--kill-child", "--mount-proc"]).arg(env::current_exe().unwrap());
        let mut child = program_of(&network, command, name);
        let redirect = || network.adopt(&AdoptOptions::new("eth0"));
        assert!(redirect().is_err(), "{name}: it is alive, and can be seen from here");
        assert_eq!(network.collect_garbage().unwrap(), [], "{name}");
        // Another container with the same network cannot see it; its guest has the tap all the same.
        assert!(!adopts_in_a_container(&network), "{name}");
        child.kill().unwrap();
        child.wait().unwrap();
        while !network.links().unwrap().iter().all(|link| link.kind.as_deref() != Some("tun")) {
            std::thread::yield_now();
        }
        assert!(adopts_in_a_container(&network), "{name}");
        network.collect_garbage().unwrap();
        assert_eq!(Snapshot::of(&network), before, "{name}");
    }
}

/// Whether a program in another process namespace can adopt the interface; it gives it back.
fn adopts_in_a_container(network: &Network) -> bool {
    let run = || {
        Command::new("unshare")
            .args(["--pid", "--fork", "--kill-child", "--mount-proc"])
            .arg(env::current_exe().unwrap())
            .args(["--exact", "cleanup::program_that_adopts", "--ignored", "--nocapture"])
            .stdin(Stdio::null())
            .output()
    };
    network.namespace().run(run).unwrap().unwrap().status.success()
}

#[test]
fn garbage_of_killed_programs_is_collected_once() {
    if !(need::tap() && need::program("tc")) {
        return;
    }
    let network = container();
    let mut child = program(&network, "program_that_makes_things");
    child.kill().unwrap();
    child.wait().unwrap();
    let mut names: Vec<_> = network
        .collect_garbage()
        .unwrap()
        .into_iter()
        .map(|leftover| match leftover {
            Leftover::Link { name, owner } if owner.pid() == child.id() => name,
            other => panic!("{other:?}"),
        })
        .collect();
    names.sort();
    assert_eq!(names, ["a", "br0", "tap1"], "taps with an owner go by themselves, and b with a");
    assert_eq!(network.collect_garbage().unwrap(), []);
    let mut left: Vec<_> = network.links().unwrap().into_iter().map(|link| link.name).collect();
    left.sort();
    assert_eq!(left, ["eth0", "kept", "lo", "peer"]);
}

#[test]
fn programs_without_rights_learn_what_they_lack() {
    if !need::tap() {
        return;
    }
    let network = Network::isolated().unwrap();
    let _taps = [("tap0", 0), ("tap1", 65534)].map(|(name, owner)| {
        network.create_persistent_tap(&TapOptions::new().name(name).owner(owner)).unwrap()
    });
    let run = || {
        Command::new(env::current_exe().unwrap())
            .args(["--exact", "cleanup::program_without_rights", "--ignored", "--nocapture"])
            .uid(65534)
            .gid(65534)
            .output()
    };
    let output = network.namespace().run(run).unwrap().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    // Not every machine lets everybody at the device.
    let mode = fs::metadata("/dev/net/tun").unwrap().permissions().mode();
    let (open, opened) = match mode & 0o006 {
        0o006 => ("error: cannot open tap 'tap0': it belongs to another user", "opened: true"),
        _ => (
            "error: cannot open tap 'tap0': /dev/net/tun cannot be opened; its file mode does not let you",
            "opened: false",
        ),
    };
    for part in [
        open,
        opened,
        "error: cannot create bridge 'br0': not permitted; that takes CAP_NET_ADMIN",
        "error: cannot add address 10.0.0.1/8 of interface 'lo': not permitted; that takes CAP_NET_ADMIN",
        "error: cannot create a network namespace: not permitted; that takes CAP_SYS_ADMIN",
    ] {
        assert!(text.contains(part), "{part}\n{text}{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn nothing_is_left_of_many_networks() {
    if !need::tap() {
        return;
    }
    let network = Network::isolated().unwrap();
    let open = || fs::read_dir("/proc/self/fd").unwrap().count();
    let before = open();
    let names: Vec<_> = (0..100).map(|_| network.lease(&LeaseOptions::new()).unwrap()).collect();
    let mut hosts: Vec<_> = names.iter().map(|lease| lease.host.network()).collect();
    hosts.sort();
    hosts.dedup();
    assert_eq!(hosts.len(), 100, "every guest has a network of its own");
    drop(names);
    assert_eq!(network.links().unwrap().len(), 1);
    assert_eq!(network.addresses().unwrap(), []);
    // Other tests open descriptors, too, but not a hundred.
    assert!(open() < before + 100);
}
