//! A forwarder in a program that has few descriptors.

use nabla_net::Forwarder;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::{
    env,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Command, Stdio},
    thread,
};

/// Descriptors of the program: for at most a dozen connections.
const DESCRIPTORS: u64 = 32;

#[test]
#[ignore = "a program for another test"]
fn program_that_forwards() {
    let target: SocketAddr = env::var("TARGET").unwrap().parse().unwrap();
    let forwarder = Forwarder::start(SocketAddr::from(([127, 0, 0, 1], 0)), target).unwrap();
    let limit = Rlimit { current: Some(DESCRIPTORS), ..getrlimit(Resource::Nofile) };
    setrlimit(Resource::Nofile, limit).unwrap();
    println!("\nready {}", forwarder.local_address());
    let _ = std::io::stdin().read_line(&mut String::new());
}

#[test]
fn without_descriptors_clients_wait_until_others_have_ended() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", "forward::program_that_forwards", "--ignored", "--nocapture"])
        .env("TARGET", server.local_addr().unwrap().to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let address =
        lines.map(|line| line.unwrap()).find_map(|line| line.strip_prefix("ready ").map(str::to_owned));
    let address = address.unwrap();
    thread::spawn(move || {
        for served in server.incoming() {
            thread::spawn(move || {
                let mut served = served.unwrap();
                let mut byte = [0];
                while served.read(&mut byte).unwrap_or(0) == 1 && served.write_all(&byte).is_ok() {}
            });
        }
    });
    let mut clients: Vec<_> = (0..40).map(|_| TcpStream::connect(&address).unwrap()).collect();
    let exchange = |client: &mut TcpStream| {
        client.write_all(b"x").unwrap();
        client.read_exact(&mut [0]).unwrap();
    };
    exchange(&mut clients[0]);
    let mut last = clients.pop().unwrap();
    drop(clients);
    exchange(&mut last);
    drop(child.stdin.take());
    child.wait().unwrap();
}
