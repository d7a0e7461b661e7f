use super::*;
use linux_raw_sys::if_tun::{IFF_TUN, TUN_F_CSUM, TUN_F_TSO4, TUN_F_TSO6};
use nabla_testkit::{TestTap, need};
use rustix::fs::{FileType, Mode, OFlags};
use std::{os::unix::net::UnixDatagram, process::Command, thread};

/// Opens a tap as another program may, with these flags.
fn attach(name: &str, flags: u32) -> OwnedFd {
    let tun = ioctl::open_tun().unwrap();
    ioctl::attach(tun.as_fd(), name, flags).unwrap();
    tun
}

fn refused(descriptor: OwnedFd) -> Kind {
    Tap::from_fd(descriptor).unwrap_err().kind
}

#[test]
fn offloads_that_another_program_left_on_are_switched_off() {
    if !need::tap() {
        return;
    }
    let existing = TestTap::new();
    let name = existing.name();
    let has_offloads = || Interfaces::open().unwrap().has_offloads(name).unwrap();
    let left_on = || {
        let tap = attach(name, PLAIN | IFF_VNET_HDR);
        ioctl::set::<{ ioctl::TUNSETOFFLOAD }>(tap.as_fd(), TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6).unwrap();
        drop(tap);
        assert!(has_offloads());
    };
    left_on();
    drop(Tap::open(name).unwrap());
    assert!(!has_offloads());
    left_on();
    let tap = attach(name, PLAIN);
    assert!(has_offloads());
    drop(Tap::from_fd(tap).unwrap());
    assert!(!has_offloads());
}

#[test]
fn descriptors_with_headers_and_those_of_no_tap_are_refused() {
    if !need::tap() {
        return;
    }
    let tap = TestTap::new();
    assert!(matches!(refused(attach(tap.name(), PLAIN | IFF_VNET_HDR)), Kind::VirtioHeader));
    assert!(matches!(refused(attach(tap.name(), IFF_TAP)), Kind::PacketInformation));
    assert!(matches!(refused(attach("tun%d", IFF_TUN | IFF_NO_PI)), Kind::NotATap));
    assert!(matches!(refused(ioctl::open_tun().unwrap()), Kind::NotATap));
    // As a queue of several.
    let tap = attach("mq%d", PLAIN | IFF_MULTI_QUEUE);
    assert_eq!(Tap::from_fd(tap).unwrap().name(), Some("mq0"));
}

#[test]
fn virtio_header_of_a_macvtap_is_switched_off() {
    if !need::tap() {
        return;
    }
    let below = TestTap::up("10.0.0.1/24");
    let script = "ip link add link \"$0\" name mvt0 type macvtap && mount -t sysfs none /sys && cat /sys/class/net/mvt0/macvtap/tap*/dev";
    let output = Command::new("unshare").args(["-m", "sh", "-c", script, below.name()]).output().unwrap();
    let device = String::from_utf8(output.stdout).unwrap();
    let Some((major, minor)) = device.trim().split_once(':') else {
        need::there("macvtap", false, "needs macvtap");
        return;
    };
    let device = rustix::fs::makedev(major.parse().unwrap(), minor.parse().unwrap());
    let path = std::env::temp_dir().join(format!("nabla-macvtap-{}", std::process::id()));
    rustix::fs::mknodat(rustix::fs::CWD, &path, FileType::CharacterDevice, Mode::RUSR | Mode::WUSR, device)
        .unwrap();
    let opened = rustix::fs::open(&path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
    std::fs::remove_file(&path).unwrap();
    let opened = opened.unwrap();
    assert_ne!(ioctl::attached(opened.as_fd()).unwrap().1 & IFF_VNET_HDR, 0);
    let tap = Tap::from_fd(opened).unwrap();
    assert_eq!(ioctl::attached(tap.as_fd()).unwrap(), ("mvt0".to_owned(), PLAIN));
    assert_eq!((tap.name(), tap.mtu().unwrap()), (Some("mvt0"), Some(1500)));
}

#[test]
fn what_is_no_tap_is_taken_and_made_non_blocking() {
    let (guest, _host) = UnixDatagram::pair().unwrap();
    let tap = Tap::from_fd(guest.into()).unwrap();
    assert!(rustix::fs::fcntl_getfl(&tap).unwrap().contains(OFlags::NONBLOCK));
    assert_eq!((tap.name(), tap.mtu().unwrap(), tap.is_up().unwrap()), (None, None, true));
    assert!(tap.persist().is_err());
}

#[test]
fn mtu_of_another_namespaces_tap_is_not_that_of_a_namesake() {
    if !need::tap() {
        return;
    }
    let here = TestTap::new();
    let (there, name) = thread::spawn(|| {
        let tap = TestTap::new();
        let opened = Tap::open(tap.name()).unwrap();
        opened.persist().unwrap();
        // It stays as long as it is open: its namespace does, too.
        (opened, tap.name().to_owned())
    })
    .join()
    .unwrap();
    // The other thread has deleted its interface when it ended.
    assert_eq!(here.name(), name);
    assert!(matches!(there.mtu().unwrap_err().kind, Kind::Mtu { .. }));
}

#[test]
fn taps_are_created_as_wanted_and_never_twice() {
    if !need::tap() {
        return;
    }
    let existing = TestTap::new();
    let error = |name: &str| Tap::create(&TapOptions::new().name(name)).unwrap_err().kind;
    assert!(matches!(error(existing.name()), Kind::Exists));
    assert!(matches!(error("lo"), Kind::Exists));
    for name in ["", "a/b", "a%s", "%d%d", "longer-than-fits"] {
        assert!(matches!(error(name), Kind::Name), "{name}");
    }
    let options = TapOptions::new().mtu(9000).owner(1000).group(100).persistent(true);
    let (first, second) = (Tap::create(&options).unwrap(), Tap::create(&options).unwrap());
    assert_eq!((first.name(), second.name()), (Some("nb0"), Some("nb1")));
    assert_eq!(second.mtu().unwrap(), Some(9000));
    assert!(matches!(Tap::open("nb0").unwrap_err().kind, Kind::Busy));
    drop(first);
    assert!(Tap::open("nb0").is_ok());
}

#[test]
fn missing_taps_are_not_created_and_other_interfaces_are_none() {
    if !need::tap() {
        return;
    }
    let _in_a_namespace = TestTap::new();
    let error = |name: &str| Tap::open(name).unwrap_err().kind;
    assert!(matches!(error("none0"), Kind::NotFound) && matches!(error("none0"), Kind::NotFound));
    assert!(matches!(error("lo"), Kind::NotATap));
    let _queues = Tap::create(&TapOptions::new().name("mq0").multi_queue(true)).unwrap();
    assert!(matches!(error("mq0"), Kind::NotATap));
}

#[test]
fn names_are_those_that_the_kernel_takes() {
    for name in ["a", "tap0", "abcdefghijklmno", "br-0.1@x", "é"] {
        assert!(check_name(name).is_ok(), "{name}");
    }
    for name in ["", "abcdefghijklmnop", "a/b", "a b", "a:1", "tap%d", ".", "..", "a\0"] {
        assert!(matches!(check_name(name), Err(Kind::Name)), "{name}");
    }
}
