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

/// What a container consists of here: a program that waits.
const WAITING: &str = "#include <unistd.h>\nint main(void) { for (;;) pause(); }\n";

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
                let mut ping = Command::new("ping");
                ping.args(["-n", "-c", "3", "-i", "0.05", "-W", "2", &address]);
                assert!(run(from, &mut ping, "").contains(" 0% packet loss"), "{by}, {who}");
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

#[test]
fn containers_of_podman_are_adopted() {
    if !(need::tap()
        && need::program("ping")
        && need::program("podman")
        && need::program("runc")
        && need::program("cc"))
    {
        return;
    }
    let host = host();
    let directory = tempfile::tempdir().unwrap();
    let root = rootfs(directory.path());
    let podman = |words: &[&str]| {
        let mut command = Command::new("podman");
        let at = |name: &str| directory.path().join(name);
        command
            .arg("--root")
            .arg(at("root"))
            .arg("--runroot")
            .arg(at("runroot"))
            .arg("--tmpdir")
            .arg(at("tmp"));
        // Its default, crun, refuses hosts whose controllers are spread over both versions of cgroups.
        command.args([
            "--runtime=runc",
            "--storage-driver=vfs",
            "--cgroup-manager=cgroupfs",
            "--events-backend=none",
        ]);
        command.arg("--network-config-dir").arg(at("networks")).args(words);
        run(&host, &mut command, "")
    };
    let start = || {
        let options = [
            "run",
            "--detach",
            "--log-driver=none",
            "--ulimit=nofile=256:256",
            "--ulimit=nproc=256:256",
            "--security-opt=seccomp=unconfined",
        ];
        let rootfs = root.display().to_string();
        podman(&[&options[..], &["--rootfs", &rootfs, "/wait"]].concat())
    };
    let containers = [start(), start()];
    let path =
        |id: &str| PathBuf::from(podman(&["inspect", "--format", "{{.NetworkSettings.SandboxKey}}", id]));
    check(&host, &path(&containers[0]), &path(&containers[1]));
    podman(&["rm", "--force", "--time=0", &containers[0], &containers[1]]);
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
