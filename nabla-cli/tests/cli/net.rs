//! Networks of a run, and `nabla net`: in network namespaces of their own, with the web server as the guest.

use super::{Outcome, nabla, outcome};
use nabla_net::Network;
use nabla_testkit::{example, example_hvt, need};
use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{IpAddr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};
use tempfile::TempDir;

/// A namespace with a loopback interface that is up.
pub fn host() -> Network {
    let network = Network::isolated().unwrap();
    network.set_up("lo").unwrap();
    network
}

/// A disk with one file.
fn disk_image() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("root")).unwrap();
    fs::write(directory.path().join("root/index.html"), "hello from a box\n").unwrap();
    let disk = directory.path().join("rootfs.iso");
    let mut build = nabla();
    build.args(["iso", "build", "-q"]).arg(directory.path().join("root")).arg("-o").arg(&disk);
    assert!(build.status().unwrap().success());
    (directory, disk)
}

/// A guest that runs, and what nabla said before it was ready.
pub struct Running {
    child: Option<Child>,
    url: String,
    said: Vec<String>,
    _disk: TempDir,
}

/// Starts a web server, and waits until it says where it is.
fn spawn_server(mut command: Command) -> Child {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    if !line.contains("http://") {
        let mut text = String::new();
        child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        panic!("{line}{text}");
    }
    child
}

/// Starts the web server in a namespace, and waits until it says where it is.
pub fn serve(
    network: &Network,
    guest: &Path,
    options: &[&str],
    prepare: impl FnOnce(&mut Command) + Send,
) -> Running {
    let (directory, disk) = disk_image();
    let mut command = nabla();
    command.arg("run").arg(guest).arg("--disk").arg(format!("{},ro", disk.display())).args(options);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    prepare(&mut command);
    let mut child = network.namespace().run(move || command.spawn()).unwrap().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let url = lines.next().map(|line| line.unwrap());
    let mut said = Vec::new();
    if url.is_none() {
        let mut text = String::new();
        child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        panic!("{options:?}: {text}");
    }
    // It has been said before the guest could say anything.
    if !options.iter().any(|option| option.contains("tap")) {
        said.push(next_line(&mut child));
        if options.contains(&"-p") {
            said.push(next_line(&mut child));
        }
    }
    Running { child: Some(child), url: url.unwrap_or_default(), said, _disk: directory }
}

/// The next line on the standard error of a program, and no byte more.
fn next_line(child: &mut Child) -> String {
    let stderr = child.stderr.as_mut().unwrap();
    let (mut line, mut byte) = (Vec::new(), [0]);
    while stderr.read(&mut byte).unwrap() == 1 && byte != *b"\n" {
        line.push(byte[0]);
    }
    String::from_utf8(line).unwrap()
}

impl Running {
    /// The next line on its standard error.
    pub fn next_line(&mut self) -> String {
        next_line(self.child.as_mut().unwrap())
    }

    /// Waits until it ends by itself.
    pub fn wait(mut self) -> Outcome {
        self.child.take().unwrap().wait_with_output().unwrap().into()
    }

    pub fn end(mut self, signal: &str) -> i32 {
        let child = self.child.take().unwrap();
        let kill = Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
        assert!(kill.success());
        let outcome: Outcome = child.wait_with_output().unwrap().into();
        outcome.status
    }
}

impl Drop for Running {
    /// Of a test that failed.
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = Command::new("kill").args(["-TERM", &child.id().to_string()]).status();
            let _ = child.wait();
        }
    }
}

/// Asks for the file from in a namespace.
fn get(network: &Network, address: &str, port: u16) -> String {
    let address: IpAddr = address.parse().unwrap();
    let ask = || {
        let mut stream =
            TcpStream::connect_timeout(&SocketAddr::new(address, port), Duration::from_secs(10))?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map(|_| answer)
    };
    network.namespace().run(ask).unwrap().unwrap_or_else(|error: std::io::Error| panic!("{address}: {error}"))
}

pub fn assert_served(network: &Network, address: &str, port: u16) {
    let answer = get(network, address, port);
    assert!(
        answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nhello from a box\n"),
        "{answer}"
    );
}

pub fn link_names(network: &Network) -> Vec<String> {
    network.links().unwrap().into_iter().map(|link| link.name).collect()
}

pub fn guests() -> Vec<PathBuf> {
    let mut guests = vec![example("httpd")];
    if need::kvm() {
        guests.push(example_hvt("httpd"));
    }
    guests
}

#[test]
fn new_network_serves_and_goes_with_every_way_to_end() {
    if !need::tap() {
        return;
    }
    let network = host();
    for guest in guests() {
        for signal in ["-INT", "-TERM", "-KILL"] {
            let running = serve(&network, &guest, &["--net", "new,host=10.3.0.1/24,dev=box0"], |_| {});
            assert_eq!(running.url, "httpd: http://10.3.0.2/");
            assert!(
                running.said[0].contains("the guest has 10.3.0.2, the host 10.3.0.1"),
                "{:?}",
                running.said
            );
            assert_served(&network, "10.3.0.2", 80);
            assert_ne!(running.end(signal), 0);
            assert_eq!(link_names(&network), ["lo"], "{signal}");
        }
    }
}

#[test]
fn networks_of_several_runs_do_not_meet() {
    if !need::tap() {
        return;
    }
    let network = host();
    let guest = example("httpd");
    let running: Vec<_> = (0..3).map(|_| serve(&network, &guest, &["--net", "new"], |_| {})).collect();
    let mut urls: Vec<_> = running.iter().map(|running| running.url.clone()).collect();
    urls.dedup();
    assert_eq!(urls.len(), 3);
    for url in urls {
        assert_served(&network, url.trim_start_matches("httpd: http://").trim_end_matches('/'), 80);
    }
    for running in running {
        running.end("-KILL");
    }
    assert_eq!(link_names(&network), ["lo"]);
}

#[test]
fn published_port_reaches_the_guest() {
    if !need::tap() {
        return;
    }
    let network = host();
    let options = ["--net", "new,host=10.3.0.1/24", "-p", "127.0.0.1:8080:80"];
    let running = serve(&network, &example("httpd"), &options, |_| {});
    assert!(running.said[1].contains("port 80 of the guest is port 8080 of 127.0.0.1"), "{:?}", running.said);
    assert_served(&network, "127.0.0.1", 8080);
    assert_eq!(running.end("-INT"), 130);
    let options = ["--net", "new,host=10.3.0.1/24", "-p", "8080:80"];
    let running = serve(&network, &example("httpd"), &options, |_| {});
    assert!(running.said[1].contains("of every address of this host (0.0.0.0;"), "{:?}", running.said);
    assert_served(&network, "10.3.0.1", 8080);
    running.end("-INT");
    assert_eq!(link_names(&network), ["lo"]);
}

#[test]
fn bridge_gets_a_port_for_the_run() {
    if !need::tap() {
        return;
    }
    let network = host();
    let bridge = network.create_bridge("br0").unwrap();
    let _address = network.add_address("br0", "10.4.0.1/24".parse().unwrap()).unwrap();
    network.set_up("br0").unwrap();
    let running = serve(&network, &example("httpd"), &["--net", "bridge=br0,address=10.4.0.9/24"], |_| {});
    let ports =
        network.links().unwrap().into_iter().filter(|link| link.controller == Some(bridge.index)).count();
    assert_eq!(ports, 1);
    assert_served(&network, "10.4.0.9", 80);
    running.end("-KILL");
    assert_eq!(link_names(&network), ["lo", "br0"]);
}

#[test]
fn adopted_interface_serves_and_is_given_back() {
    if !need::tap() {
        return;
    }
    let (network, container) = (host(), Network::isolated().unwrap());
    let _pair = network.create_veth("veth0", "eth0").unwrap();
    network.move_link("eth0", &container).unwrap();
    let _host = network.add_address("veth0", "10.5.0.1/24".parse().unwrap()).unwrap();
    let _guest = container.add_address("eth0", "10.5.0.2/24".parse().unwrap()).unwrap();
    network.set_up("veth0").unwrap();
    container.set_up("eth0").unwrap();
    // The path of a namespace that has no name: through the process that holds it.
    let pid = std::process::id();
    let descriptor = std::os::fd::AsRawFd::as_raw_fd(&std::os::fd::AsFd::as_fd(container.namespace()));
    let option = format!("adopt=eth0,netns=/proc/{pid}/fd/{descriptor}");
    for guest in guests() {
        for (signal, is_left) in [("-TERM", false), ("-KILL", true)] {
            let running = serve(&network, &guest, &["--net", &option], |_| {});
            assert!(
                running.said[0].contains("the guest has eth0 and its addresses (10.5.0.2/24)"),
                "{:?}",
                running.said
            );
            assert_served(&network, "10.5.0.2", 80);
            running.end(signal);
            assert_eq!(container.is_redirected("eth0").unwrap(), is_left, "{signal}");
        }
    }
    let mut gc = nabla();
    gc.args(["net", "gc", "--json", "--netns", &format!("/proc/{pid}/fd/{descriptor}")]);
    let collected = outcome(&mut gc);
    assert!(collected.stdout.contains("\"action\": \"given-back\""), "{collected:?}");
    assert!(!container.is_redirected("eth0").unwrap());
    assert_eq!(
        outcome(&mut gc).stdout.matches("action").count(),
        0,
        "the second time there is nothing to do"
    );
}

/// Whether there is a process whose network is this one.
fn is_inhabited(network: &Network) -> bool {
    let processes =
        fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let own = std::process::id();
    processes
        .filter(|&pid: &u32| pid != own)
        .filter_map(|pid| nabla_net::Namespace::of_process(pid).ok())
        .any(|namespace| namespace.is_same(network.namespace()).unwrap())
}

#[test]
fn two_hundred_guests_of_which_many_are_killed_leave_nothing() {
    const AT_ONCE: usize = 10;
    if !need::tap() {
        return;
    }
    let (network, container) = (host(), Network::isolated().unwrap());
    // IPv6 would make addresses and routes by itself, in its own time.
    let no_ipv6 = || fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
    for network in [&network, &container] {
        network.namespace().run(no_ipv6).unwrap().unwrap();
    }
    network.create_bridge("br0").unwrap().keep();
    network.set_up("br0").unwrap();
    network.create_veth("veth0", "eth0").unwrap().keep();
    network.move_link("eth0", &container).unwrap();
    network.set_up("veth0").unwrap();
    container.set_up("eth0").unwrap();
    container.add_address("eth0", "10.5.0.2/24".parse().unwrap()).unwrap().keep();
    // A bridge that has lost its last port has no carrier, unlike one that never had a port.
    network.attach("veth0", "br0").unwrap().release().unwrap();
    // The kernel notices carriers in its own time.
    let settle = || {
        let is_running = |network: &Network, name| network.link(name).unwrap().is_running;
        while !is_running(&network, "veth0") || !is_running(&container, "eth0") || is_running(&network, "br0")
        {
            std::thread::yield_now();
        }
    };
    settle();
    let contents = |network: &Network| {
        let mut links = network.links().unwrap();
        // The kernel tells some time after `set_up` that a cable has a carrier.
        links.iter_mut().for_each(|link| link.is_running = false);
        (links, network.addresses().unwrap(), network.routes().unwrap())
    };
    // The bridge takes its address from its ports.
    let bridge_mac = network.link("br0").unwrap().mac.unwrap();
    network.set_mac("br0", bridge_mac).unwrap().keep();
    let before = (contents(&network), contents(&container));
    let descriptors = || fs::read_dir("/proc/self/fd").unwrap().count();
    let open = descriptors();
    let pid = std::process::id();
    let netns = std::os::fd::AsRawFd::as_raw_fd(&std::os::fd::AsFd::as_fd(container.namespace()));
    let adopt = format!("adopt=eth0,netns=/proc/{pid}/fd/{netns}");
    let guests = guests();
    for round in 0..200 / AT_ONCE {
        let running: Vec<_> = (0..AT_ONCE)
            .map(|index| {
                let bridge = format!("bridge=br0,address=10.4.0.{}/24", 2 + index);
                let option = match index {
                    0 => &*adopt,
                    1..4 => &*bridge,
                    _ => "new",
                };
                serve(&network, &guests[index % guests.len()], &["--net", option], |_| {})
            })
            .collect();
        for (index, running) in running.into_iter().enumerate() {
            running.end(["-KILL", "-TERM", "-INT"][(round + index) % 3]);
        }
    }
    let mut gc = nabla();
    gc.args(["net", "gc", "--netns", &format!("/proc/{pid}/fd/{netns}")]);
    assert_eq!(outcome(&mut gc).status, 0);
    settle();
    assert_eq!((contents(&network), contents(&container)), before);
    assert!(
        !container.is_redirected("eth0").unwrap() && !is_inhabited(&network) && !is_inhabited(&container)
    );
    // Other tests open descriptors, too, but not as many.
    assert!(descriptors() < open + 100, "{open} {}", descriptors());
}

#[test]
fn flood_of_pings_loses_nothing() {
    const PINGS: &str = "100000";
    if !(need::tap() && need::program("ping")) {
        return;
    }
    let network = host();
    for guest in guests() {
        let running = serve(&network, &guest, &["--net", "new,host=10.3.0.1/24"], |_| {});
        let flood =
            || Command::new("ping").args(["-f", "-q", "-n", "-c", PINGS, "10.3.0.2"]).output().unwrap();
        // The guest throws one away while it asks for its client's address.
        assert_served(&network, "10.3.0.2", 80);
        let output = network.namespace().run(flood).unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("100000 received, 0% packet loss"), "{}: {text}", guest.display());
        running.end("-INT");
    }
}

#[test]
fn user_without_rights_runs_on_a_tap_that_root_made() {
    if !need::tap() {
        return;
    }
    let network = host();
    let run = |arguments: &[&str]| {
        let mut command = nabla();
        command.args(["net"]).args(arguments);
        network.namespace().run(move || outcome(&mut command)).unwrap()
    };
    let created = run(&["create", "tap0", "--owner", "65534", "--address", "10.6.0.1/24", "--json"]);
    assert_eq!(created.status, 0, "{created:?}");
    assert!(created.stdout.contains("\"state\": \"kept\""), "{created:?}");
    // On most systems every user may open the device, as here. What the program needs is in a place that only root can reach.
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir_in("/tmp").unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let (disks, disk) = disk_image();
    const SCRIPT: &str = "cp \"$1\" nabla && cp \"$2\" guest && cp \"$3\" disk && chmod 644 disk && mkdir dev \
        && mount -t tmpfs none dev && mknod dev/tun c 10 200 && chmod 666 dev/tun && mount --bind dev/tun /dev/net/tun \
        && exec setpriv --reuid 65534 --regid 65534 --clear-groups --no-new-privs \
           ./nabla run guest --disk disk,ro --net tap0,address=10.6.0.2/24";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", SCRIPT, "sh", env!("CARGO_BIN_EXE_nabla")]);
    command.arg(example("httpd")).arg(disk).current_dir(directory.path());
    let child = network.namespace().run(move || spawn_server(command)).unwrap();
    let running = Running { child: Some(child), url: String::new(), said: Vec::new(), _disk: disks };
    assert_served(&network, "10.6.0.2", 80);
    running.end("-INT");
    assert!(run(&["list"]).stdout.contains("nabla net create"));
    assert_eq!(run(&["gc", "--netns", "/proc/self/ns/net"]).stdout, "", "it is to stay");
    assert_eq!(run(&["delete", "tap0"]).status, 0);
    assert_eq!(link_names(&network), ["lo"]);
}

#[test]
fn mistakes_with_networks_say_what_helps() {
    if !need::tap() {
        return;
    }
    let network = host();
    network.add_address("lo", "10.7.0.1/24".parse().unwrap()).unwrap().keep();
    let guest = example("httpd");
    let (_directory, disk) = disk_image();
    for (options, part) in [
        (&["--net", "new,host=10.7.0.9/24"][..], "is in use here"),
        (&["--net", "new,host=10.8.0.1/24,guest=10.9.0.1"], "is not in the host's network"),
        (&["--net", "new,host=10.8.0.1/24,dev=lo"], "exists already"),
        (&["--net", "new,mtu=10"], "cannot create tap 'nb0': its MTU cannot be set: "),
        (&["--net", "bridge=lo"], "it is no bridge"),
        (&["--net", "bridge=none"], "cannot find interface 'none'"),
        (&["--net", "adopt=none"], "no other one"),
        (&["--net", "adopt=eth0,netns=/etc/passwd"], "it is no network namespace"),
        (&["--net", "new", "-p", "80"], "is not [ADDRESS:]PORT:GUEST_PORT"),
    ] {
        let mut command = nabla();
        command.arg("run").arg(&guest).arg("--disk").arg(format!("{},ro", disk.display())).args(options);
        let failed = network.namespace().run(move || outcome(&mut command)).unwrap();
        assert_eq!(failed.status, 125, "{options:?}: {failed:?}");
        assert!(failed.stderr.contains(part), "{options:?}: {}", failed.stderr);
    }
    assert_eq!(link_names(&network), ["lo"]);
    let foreign = network.create_bridge("foreign").unwrap();
    let mut command = Command::new("ip");
    command.args(["link", "set", &foreign.name, "alias", "mine"]);
    assert!(network.namespace().run(move || command.status()).unwrap().unwrap().success());
    let mut command = nabla();
    command.args(["net", "delete", "foreign"]);
    let refused = network.namespace().run(move || outcome(&mut command)).unwrap();
    assert!(refused.status == 125 && refused.stderr.contains("was not made by nabla"), "{refused:?}");
}
