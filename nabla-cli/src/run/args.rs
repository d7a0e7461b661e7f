//! The command line of `nabla run`.

use super::{
    device::DiskSpec,
    net_spec::{NetSpec, PublishSpec},
};
use clap::{
    Args,
    builder::{OsStringValueParser, PossibleValuesParser, TypedValueParser},
};
use nabla_monitor::{Abi, ByteSize, DEFAULT_MEMORY, Identity};
use nabla_net::ConfigStyle;
use std::{ffi::OsString, path::PathBuf};

const EXAMPLES: &str = "\
Examples:
  nabla run app.nabla
  # 64 MiB of memory, and two arguments for the guest
  nabla run app.nabla --mem 64 -- --port 80
  # its only disk, read-only
  nabla run app.nabla --disk disk.img,ro
  # two disks, by the names that the guest has for them
  nabla run app.nabla --disk data=disk.img,block-size=4096 --disk log=/dev/sdb
  nabla run app.nabla --net tap0,mac=02:00:00:00:00:01
  # a network for this run, and port 8080 of the host for port 80 of the guest
  nabla run httpd.nabla --disk rootfs.iso --net new -p 8080:80
  nabla run app.nabla --net new,host=10.0.0.1/24,guest=10.0.0.2
  # at a bridge; and the interface that a container engine has prepared
  nabla run app.nabla --net bridge=br0,address=10.0.0.7/24,gateway=10.0.0.1
  nabla run app.nabla --net adopt=eth0,netns=/run/netns/pod
  nabla run app.nabla --supervise --json-report report.json
  # then, in another terminal: gdb app.nabla -ex 'target remote 127.0.0.1:1234'
  nabla run app.nabla --gdb
  nabla run app.nabla --dumpcore /var/tmp

nabla becomes the guest's process: its process id, its signals and its exit status are the guest's. (Of an hvt \
guest it is the monitor, in one process; 128+N is then its exit status instead of the end by a signal.) With \
--supervise, --json-report, --gdb, --dumpcore, -p or --net adopt= it stays as the guest's parent: it says on standard error how a guest ended that did \
not just exit, exits with 128+N when signal N ended the guest, and ends the guest when it gets SIGINT, SIGTERM, \
SIGHUP or SIGQUIT itself.

'nabla inspect IMAGE' tells the names of the devices that a guest declares; the only one of a kind needs none. A \
comma in a path is written twice, and a path that starts with letters or digits and '=' is written ./PATH.

Exit status: the guest's own; 125 when nabla itself failed, wrong usage included, 126 when the image cannot be \
run, 127 when it does not exist.";

/// Arguments of `nabla run`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
#[command(after_help = EXAMPLES)]
pub struct RunArgs {
    /// The guest's image.
    pub image: PathBuf,

    /// Arguments for the guest; after -- if one of them starts with a dash.
    pub args: Vec<OsString>,

    /// Memory: a number of MiB, or with a unit such as 64M or 4G.
    #[arg(long, value_name = "SIZE", default_value_t = DEFAULT_MEMORY, value_parser = memory)]
    pub mem: ByteSize,

    /// Name of the guest's process in ps [default: the image's file name].
    #[arg(long)]
    pub name: Option<String>,

    /// ABI of an image that does not say which it has.
    #[arg(long, value_parser = abi_parser())]
    pub abi: Option<Abi>,

    /// Attach a file or block device as the disk NAME, or as the guest's only disk; ro: read-only.
    #[arg(
        long,
        value_name = "[NAME=]PATH[,ro][,block-size=N]",
        help_heading = "Devices",
        value_parser = OsStringValueParser::new().try_map(|text| DiskSpec::parse(&text))
    )]
    pub disk: Vec<DiskSpec>,

    /// Attach a network as the interface NAME, or as the guest's only one.
    ///
    /// SOURCE is a tap that exists (TAP, or @N for descriptor N); new, for a network of the host and the guest alone; bridge=BRIDGE,
    /// for a tap at a bridge; or adopt=INTERFACE, for an interface that the guest gets with its addresses. All take mac=ADDRESS,
    /// mtu=BYTES, dns=IP and hostname=NAME; new also host=IP/PREFIX, guest=IP and dev=INTERFACE; TAP and bridge also
    /// address=IP/PREFIX and gateway=IP; bridge and adopt also netns=PATH; adopt also by=redirect|bridge.
    #[arg(
        long,
        value_name = "[NAME=]SOURCE[,OPTION]...",
        help_heading = "Network",
        value_parser = OsStringValueParser::new().try_map(|text| NetSpec::parse(&text))
    )]
    pub net: Vec<NetSpec>,

    /// Pass TCP connections to a port of the host on to the guest, without rules in a firewall.
    #[arg(short, long, value_name = "[ADDRESS:]PORT:GUEST_PORT", help_heading = "Network")]
    pub publish: Vec<PublishSpec>,

    /// How the guest is told its addresses: by the arguments of its kind [default: as the image shows].
    #[arg(long, value_name = "KIND", help_heading = "Network", value_parser = config_style_parser())]
    pub net_config: Option<ConfigStyle>,

    /// Append what the guest prints to a file instead of standard output.
    #[arg(long, value_name = "FILE", help_heading = "Devices")]
    pub console: Option<PathBuf>,

    /// Stay as the guest's parent; say which system call was denied or which address faulted.
    #[arg(long, help_heading = "Supervision")]
    pub supervise: bool,

    /// Stay as the guest's parent; write to a file how the guest ended and what it used.
    #[arg(long, value_name = "FILE", help_heading = "Supervision")]
    pub json_report: Option<PathBuf>,

    /// Wait for gdb at the guest's first instruction: on a TCP address, or on a Unix socket at a path with a '/'.
    #[arg(
        long,
        value_name = "ADDRESS|SOCKET",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "127.0.0.1:1234",
        help_heading = "Debugging"
    )]
    pub gdb: Option<PathBuf>,

    /// Write a core dump into a directory when the guest aborts, faults or is ended for what it may not do.
    #[arg(long, value_name = "DIR", help_heading = "Debugging")]
    pub dumpcore: Option<PathBuf>,

    /// Let the guest execute its heap and stack, and take images with writable code. Dangerous.
    #[arg(long, help_heading = "Confinement and memory")]
    pub x_exec_heap: bool,

    /// Back the guest's memory with huge pages.
    #[arg(long, help_heading = "Confinement and memory")]
    pub huge_pages: bool,

    /// Give the guest namespaces of its own, on top of the system call filter.
    #[arg(long, help_heading = "Confinement and memory")]
    pub isolate: bool,

    /// Run the guest as another user and group, by number; takes root.
    #[arg(long, value_name = "UID:GID", help_heading = "Confinement and memory", value_parser = identity)]
    pub user: Option<Identity>,

    /// Put the guest into a cgroup that exists: a directory below /sys/fs/cgroup.
    #[arg(long, value_name = "DIR", help_heading = "Confinement and memory")]
    pub cgroup: Option<PathBuf>,
}

/// Parses the value of `--abi`.
pub fn abi_parser() -> impl TypedValueParser<Value = Abi> {
    PossibleValuesParser::new(Abi::ALL.map(Abi::name)).try_map(|name| name.parse::<Abi>())
}

/// Parses the value of `--net-config`.
fn config_style_parser() -> impl TypedValueParser<Value = ConfigStyle> {
    PossibleValuesParser::new(ConfigStyle::ALL.map(ConfigStyle::name))
        .try_map(|name| name.parse::<ConfigStyle>())
}

/// Parses the value of `--mem`.
pub fn memory(text: &str) -> Result<ByteSize, String> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        let mebibytes = text.parse::<u64>().ok().and_then(|number| number.checked_mul(1 << 20));
        mebibytes.map(ByteSize::bytes).ok_or_else(|| format!("'{text}' MiB is too large"))
    } else {
        text.parse().map_err(|error: nabla_core::ParseByteSizeError| error.to_string())
    }
}

/// Parses the value of `--user`.
pub fn identity(text: &str) -> Result<Identity, String> {
    let number = |text: &str| text.parse().ok();
    text.split_once(':')
        .and_then(|(uid, gid)| Some(Identity { uid: number(uid)?, gid: number(gid)? }))
        .ok_or_else(|| format!("'{text}' is not UID:GID, two numbers"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bare_memory_is_in_mebibytes() {
        for (text, size) in [
            ("64", ByteSize::mib(64)),
            ("0", ByteSize::bytes(0)),
            ("64M", ByteSize::mib(64)),
            ("1G", ByteSize::gib(1)),
            ("2048k", ByteSize::mib(2)),
            ("2097152B", ByteSize::mib(2)),
        ] {
            assert_eq!(memory(text), Ok(size), "{text}");
        }
    }

    #[test]
    fn bad_memory_says_what_is_wrong() {
        for (text, part) in [
            ("", "not a size"),
            ("M", "not a size"),
            ("-1", "not a size"),
            ("1X", "unknown unit"),
            ("17592186044416", "too large"),
            ("99999999999999999999", "too large"),
            ("99999999999999999999G", "too large"),
        ] {
            let error = memory(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn identities_are_two_numbers() {
        assert_eq!(identity("1000:65534"), Ok(Identity { uid: 1000, gid: 65534 }));
        for text in ["", "1000", "1000:", ":1", "root:root", "-1:0", "1:2:3", "4294967296:0"] {
            assert!(identity(text).is_err(), "{text}");
        }
    }
}
