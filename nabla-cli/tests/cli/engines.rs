//! Guests in place of containers: in the namespaces that Docker, Podman and the plugins of CNI prepare. Each engine runs in a
//! network namespace of its own, which is its host.

use super::{
    nabla,
    net::{Running, guests, host, serve},
    outcome,
};
use nabla_net::{Address, Link, Namespace, Network, Route};
use nabla_testkit::need;
use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// What a container consists of here: a program that waits, or ends at once when it gets an argument.
const WAITING: &str = "#include <unistd.h>\nint main(int count) { while (count == 1) pause(); return 0; }\n";

/// A directory with a static program `/wait`.
fn rootfs(directory: &Path) -> PathBuf {
    let root = directory.join("rootfs");
    for name in ["", "etc", "proc", "sys", "dev", "run", "tmp"] {
        fs::create_dir_all(root.join(name)).unwrap();
    }
    let source = directory.join("wait.c");
    fs::write(&source, WAITING).unwrap();
    let compiled = Command::new("cc").args(["-static", "-o"]).arg(root.join("wait")).arg(source).status();
    assert!(compiled.unwrap().success());
    root
}

/// Runs a program on an engine's host to its successful end, and returns what it printed.
fn run(host: &Network, command: &mut Command, input: &str) -> String {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = host.namespace().run(|| -> std::io::Result<Output> {
        let mut child = command.spawn()?;
        child.stdin.take().unwrap().write_all(input.as_bytes())?;
        child.wait_with_output()
    });
    let output = output.unwrap().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    assert!(output.status.success(), "{command:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// All that a namespace has.
fn contents(network: &Network) -> (Vec<Link>, Vec<Address>, Vec<Route>) {
    (network.links().unwrap(), network.addresses().unwrap(), network.routes().unwrap())
}

/// A guest gets the interface of one container, answers its host and another container, and gives it back.
fn check(host: &Network, container: &Path, other: &Path) {
    let inside = Network::inside(Namespace::open_path(container).unwrap()).unwrap();
    let other = Network::inside(Namespace::open_path(other).unwrap()).unwrap();
    let eth0 = inside.link("eth0").unwrap();
    let address = inside
        .addresses()
        .unwrap()
        .into_iter()
        .find(|address| address.link == eth0.index && address.cidr.address().is_ipv4());
    let address = address.unwrap().cidr.address().to_string();
    let before = contents(&inside);
    for guest in guests() {
        for by in ["redirect", "bridge"] {
            let option = format!("adopt=eth0,netns={},by={by}", container.display());
            let running: Running = serve(host, &guest, &["--net", &option], |_| {});
            for (from, who) in [(host, "host"), (&other, "container")] {
                eprintln!("{} by {by} from {who}", guest.display());
                super::net::assert_served(from, &address, 80);
                // One at a time: after an answer, ping waits for others only as long as that one took, twice.
                for _ in 0..3 {
                    let mut ping = Command::new("ping");
                    ping.args(["-n", "-c", "1", "-W", "60", &address]);
                    assert!(run(from, &mut ping, "").contains(" 0% packet loss"), "{by}, {who}");
                }
            }
            running.end("-INT");
            assert_eq!(contents(&inside), before, "{by}");
        }
    }
    let collected = outcome(nabla().args(["net", "gc", "--netns"]).arg(container));
    assert_eq!((collected.status, collected.stdout.as_str()), (0, ""));
}

#[test]
fn containers_of_cnis_bridge_plugin_are_adopted() {
    const PLUGINS: &str = "/usr/lib/cni";
    if !(need::tap() && need::program("ping") && need::program("iptables")) {
        return;
    }
    let plugins = Path::new(PLUGINS).join("bridge").exists();
    if !need::there("cni", plugins, "needs the CNI plugins (containernetworking-plugins)") {
        return;
    }
    let host = host();
    let state = tempfile::tempdir().unwrap();
    let configuration = format!(
        r#"{{"cniVersion": "0.4.0", "name": "test", "type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true,
            "ipam": {{"type": "host-local", "dataDir": "{}", "ranges": [[{{"subnet": "10.22.0.0/16"}}]],
                      "routes": [{{"dst": "0.0.0.0/0"}}]}}}}"#,
        state.path().display()
    );
    let containers = [(); 2].map(|()| Network::isolated().unwrap());
    let path = |index: usize| {
        use std::os::fd::{AsFd, AsRawFd};
        let descriptor = containers[index].namespace().as_fd().as_raw_fd();
        PathBuf::from(format!("/proc/{}/fd/{descriptor}", std::process::id()))
    };
    let plugin = |verb: &str, index: usize| {
        let mut command = Command::new(Path::new(PLUGINS).join("bridge"));
        command.env("CNI_COMMAND", verb).env("CNI_PATH", PLUGINS).env("CNI_IFNAME", "eth0");
        command.env("CNI_CONTAINERID", format!("container{index}")).env("CNI_NETNS", path(index));
        run(&host, &mut command, &configuration)
    };
    for (index, container) in containers.iter().enumerate() {
        container.set_up("lo").unwrap();
        plugin("ADD", index);
    }
    check(&host, &path(0), &path(1));
    for index in 0..2 {
        plugin("DEL", index);
    }
}

/// Podman's own default network, but that the addresses in use are noted in a directory of the test.
fn podman_network(state: &Path) -> String {
    let state = state.display();
    format!(
        r#"{{"cniVersion": "0.4.0", "name": "podman", "plugins": [
            {{"type": "bridge", "bridge": "cni-podman0", "isGateway": true, "ipMasq": true, "hairpinMode": true,
              "ipam": {{"type": "host-local", "dataDir": "{state}", "routes": [{{"dst": "0.0.0.0/0"}}],
                        "ranges": [[{{"subnet": "10.88.0.0/16", "gateway": "10.88.0.1"}}]]}}}},
            {{"type": "portmap", "capabilities": {{"portMappings": true}}}}, {{"type": "firewall"}}, {{"type": "tuning"}}]}}"#
    )
}

/// A Podman of its own.
struct Podman<'a> {
    host: &'a Network,
    directory: &'a TempDir,
    runtime: &'static str,
}

impl<'a> Podman<'a> {
    /// With the first runtime that can run a container here: crun refuses hosts whose controllers are spread over both
    /// versions of cgroups.
    fn new(host: &'a Network, directory: &'a TempDir, rootfs: &str) -> Self {
        let networks = directory.path().join("networks");
        fs::create_dir(&networks).unwrap();
        let network = podman_network(&directory.path().join("addresses"));
        fs::write(networks.join("podman.conflist"), network).unwrap();
        let mut refusals = Vec::new();
        for runtime in ["crun", "runc"] {
            let podman = Self { host, directory, runtime };
            let mut command =
                podman.container(&["--rm", "--network=none", "--rootfs", rootfs, "/wait", "no"]);
            let output = host.namespace().run(|| command.output()).unwrap().unwrap();
            if output.status.success() {
                return podman;
            }
            refusals.push(format!("{runtime}: {}", String::from_utf8_lossy(&output.stderr)));
        }
        panic!("no runtime can run a container: {refusals:?}");
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("podman");
        for (option, name) in
            [("root", "root"), ("runroot", "runroot"), ("tmpdir", "tmp"), ("network-config-dir", "networks")]
        {
            command.arg(format!("--{option}={}", self.directory.path().join(name).display()));
        }
        command.arg(format!("--runtime={}", self.runtime));
        command
            .args(["--storage-driver=vfs", "--cgroup-manager=cgroupfs", "--events-backend=none"])
            .args(words);
        command
    }

    /// The command that runs a container.
    fn container(&self, words: &[&str]) -> Command {
        let mut command = self.command(&["run", "--log-driver=none", "--security-opt=seccomp=unconfined"]);
        command.args(["--ulimit=nofile=256:256", "--ulimit=nproc=256:256"]).args(words);
        command
    }
}

impl Drop for Podman<'_> {
    /// Containers are not children of the test: those of a failed test would stay.
    fn drop(&mut self) {
        let mut command = self.command(&["rm", "--all", "--force", "--time=0"]);
        let _ = self.host.namespace().run(|| command.output());
    }
}

#[test]
fn containers_of_podman_are_adopted() {
    if !(need::tap() && need::program("ping") && need::program("podman") && need::program("cc")) {
        return;
    }
    let host = host();
    let directory = tempfile::tempdir().unwrap();
    let root = rootfs(directory.path()).display().to_string();
    let podman = Podman::new(&host, &directory, &root);
    let path = |_| {
        let id = run(&host, &mut podman.container(&["--detach", "--rootfs", &root, "/wait"]), "");
        let format = "{{.NetworkSettings.SandboxKey}}";
        PathBuf::from(run(&host, &mut podman.command(&["inspect", "--format", format, &id]), ""))
    };
    let [container, other] = [(); 2].map(path);
    check(&host, &container, &other);
    run(&host, &mut podman.command(&["rm", "--all", "--force", "--time=0"]), "");
}

/// A Docker of its own.
struct Docker<'a> {
    host: &'a Network,
    directory: &'a TempDir,
    daemon: Child,
}

impl<'a> Docker<'a> {
    fn start(host: &'a Network, directory: &'a TempDir) -> Self {
        let at = |name: &str| directory.path().join(name);
        let mut command = Command::new("dockerd");
        command
            .arg("--data-root")
            .arg(at("data"))
            .arg("--exec-root")
            .arg(at("exec"))
            .arg("--pidfile")
            .arg(at("pid"));
        command.arg(format!("--host=unix://{}", at("socket").display())).arg("--storage-driver=vfs");
        let log = fs::File::create(at("log")).unwrap();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let daemon = host.namespace().run(|| command.spawn()).unwrap().unwrap();
        let docker = Self { host, directory, daemon };
        let deadline = Instant::now() + Duration::from_secs(60);
        while !docker.command(&["version"]).output().unwrap().status.success() {
            let log = || fs::read_to_string(at("log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "dockerd does not start: {}", log());
            // Nothing tells when it is ready.
            thread::sleep(Duration::from_millis(50));
        }
        docker
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("docker");
        let socket = self.directory.path().join("socket");
        command.arg(format!("--host=unix://{}", socket.display())).args(words);
        command
    }

    fn run(&self, words: &[&str]) -> String {
        run(self.host, &mut self.command(words), "")
    }
}

impl Drop for Docker<'_> {
    fn drop(&mut self) {
        // It ends its own processes with it.
        let _ = Command::new("kill").arg(self.daemon.id().to_string()).status();
        let _ = self.daemon.wait();
    }
}

#[test]
fn containers_of_docker_are_adopted() {
    let programs = ["ping", "dockerd", "docker", "iptables", "cc"];
    if !(need::tap() && programs.into_iter().all(need::program)) {
        return;
    }
    let host = host();
    let directory = tempfile::tempdir().unwrap();
    let root = rootfs(directory.path());
    let archive = directory.path().join("image.tar");
    let mut tar = Command::new("tar");
    assert!(tar.arg("-cf").arg(&archive).arg("-C").arg(&root).arg(".").status().unwrap().success());
    let docker = Docker::start(&host, &directory);
    docker.run(&["import", &archive.display().to_string(), "waiting"]);
    let containers =
        [(); 2].map(|()| docker.run(&["run", "--detach", "--log-driver=none", "waiting", "/wait"]));
    let path =
        |id: &str| PathBuf::from(docker.run(&["inspect", "--format", "{{.NetworkSettings.SandboxKey}}", id]));
    check(&host, &path(&containers[0]), &path(&containers[1]));
    docker.run(&["rm", "--force", &containers[0], &containers[1]]);
}
