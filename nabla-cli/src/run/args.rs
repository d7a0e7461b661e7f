//! The command line of `nabla run`.

use super::{
    device::DiskSpec,
    net_spec::{NetSpec, PublishSpec},
    option::{self, Line, Stop, Table, Value},
};
use crate::accounts::ACCOUNTS;
use clap::{Arg, Command, value_parser};
use nabla_monitor::{Abi, ByteSize, DEFAULT_MEMORY, Identity};
use nabla_net::ConfigStyle;
use std::{
    ffi::{OsStr, OsString},
    fmt,
    path::PathBuf,
    str::FromStr,
};

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
SIGHUP or SIGQUIT itself. As process 1 of a namespace it does so without them.

'nabla inspect IMAGE' tells the names of the devices that a guest declares; the only one of a kind needs none. A \
comma in a path is written twice, and a path that starts with letters or digits and '=' is written ./PATH.

Exit status: the guest's own; 125 when nabla itself failed, wrong usage included, 126 when the image cannot be \
run, 127 when it does not exist.";

/// What the command line of `nabla run` says. [`OPTIONS`] tells what each option is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunArgs {
    pub image: PathBuf,
    pub args: Vec<OsString>,
    pub mem: Option<ByteSize>,
    pub name: Option<String>,
    pub abi: Option<Abi>,
    pub disk: Vec<DiskSpec>,
    pub console: Option<PathBuf>,
    pub net: Vec<NetSpec>,
    pub publish: Vec<PublishSpec>,
    pub net_config: Option<ConfigStyle>,
    pub supervise: bool,
    pub json_report: Option<PathBuf>,
    pub gdb: Option<PathBuf>,
    pub dumpcore: Option<PathBuf>,
    pub x_exec_heap: bool,
    pub huge_pages: bool,
    pub isolate: bool,
    pub user: Option<Identity>,
    pub cgroup: Option<PathBuf>,
}

type Opt = option::Opt<RunArgs>;

/// Every option, in the order of the help. The parser, the help, the completions and the manual page follow from here: an
/// option is added as a field of [`RunArgs`] and an entry in one of these tables.
const OPTIONS: &Table<RunArgs> = &[
    (None, GENERAL),
    (Some("Devices"), DEVICES),
    (Some("Network"), NETWORK),
    (Some("Supervision"), SUPERVISION),
    (Some("Debugging"), DEBUGGING),
    (Some("Confinement and memory"), CONFINEMENT),
];

const GENERAL: &[Opt] = &[
    Opt::new(
        "mem",
        "Memory: a number of MiB, or with a unit such as 64M or 4G",
        Value::One("SIZE", |run, value| set(&mut run.mem, memory(text(value)?))),
    )
    .default(|| DEFAULT_MEMORY.to_string().replace(' ', "")),
    Opt::new(
        "name",
        "Name of the guest's process in ps [default: the image's file name]",
        Value::One("NAME", |run, value| set(&mut run.name, text(value).map(str::to_owned))),
    ),
    Opt::new(
        "abi",
        "ABI of an image that does not say which it has",
        Value::One("ABI", |run, value| set(&mut run.abi, parsed(value))),
    )
    .choices(|| Abi::ALL.map(Abi::name).to_vec()),
];

const DEVICES: &[Opt] = &[
    Opt::new(
        "disk",
        "Attach a file or block device as the disk NAME, or as the guest's only disk; ro: read-only",
        Value::Many("[NAME=]PATH[,ro][,block-size=N]", |run, value| {
            DiskSpec::parse(value).map(|disk| run.disk.push(disk))
        }),
    ),
    Opt::new(
        "console",
        "Append what the guest prints to a file instead of standard output",
        Value::Path("FILE", |run| &mut run.console),
    ),
];

const NETWORK: &[Opt] = &[
    Opt::new(
        "net",
        "Attach a network as the interface NAME, or as the guest's only one.\n\n\
         SOURCE is a tap that exists (TAP, or @N for descriptor N); new, for a network of the host and the guest \
         alone; bridge=BRIDGE, for a tap at a bridge; or adopt=INTERFACE, for an interface that the guest gets with \
         its addresses. All take mac=ADDRESS, mtu=BYTES, dns=IP and hostname=NAME; new also host=IP/PREFIX, \
         guest=IP and dev=INTERFACE; TAP and bridge also address=IP/PREFIX and gateway=IP; bridge and adopt also \
         netns=PATH; adopt also by=redirect|bridge.",
        Value::Many("[NAME=]SOURCE[,OPTION]...", |run, value| {
            NetSpec::parse(value).map(|net| run.net.push(net))
        }),
    ),
    Opt::new(
        "publish",
        "Pass TCP connections to a port of the host on to the guest, without rules in a firewall: to that of ADDRESS, or of every IPv4 address of the host",
        Value::Many("[ADDRESS:]PORT:GUEST_PORT", |run, value| {
            parsed(value).map(|port| run.publish.push(port))
        }),
    )
    .short('p'),
    Opt::new(
        "net-config",
        "How the guest is told its addresses: by the arguments of its kind [default: as the image shows]",
        Value::One("KIND", |run, value| set(&mut run.net_config, parsed(value))),
    )
    .choices(|| ConfigStyle::ALL.map(ConfigStyle::name).to_vec()),
];

const SUPERVISION: &[Opt] = &[
    Opt::new(
        "supervise",
        "Stay as the guest's parent; say which system call was denied or which address faulted",
        Value::No(|run| &mut run.supervise),
    ),
    Opt::new(
        "json-report",
        "Stay as the guest's parent; write to a file how the guest ended and what it used",
        Value::Path("FILE", |run| &mut run.json_report),
    ),
];

const DEBUGGING: &[Opt] = &[
    Opt::new(
        "gdb",
        "Wait for gdb at the guest's first instruction: on a TCP address, or on a Unix socket at a path with a '/'",
        Value::OptionalPath("ADDRESS|SOCKET", "127.0.0.1:1234", |run| &mut run.gdb),
    ),
    Opt::new(
        "dumpcore",
        "Write a core dump into a directory when the guest aborts, faults or is ended for what it may not do",
        Value::Path("DIR", |run| &mut run.dumpcore),
    ),
];

const CONFINEMENT: &[Opt] = &[
    Opt::new(
        "x-exec-heap",
        "Let the guest execute its heap and stack, and take images with writable code. Dangerous",
        Value::No(|run| &mut run.x_exec_heap),
    ),
    Opt::new("huge-pages", "Back the guest's memory with huge pages", Value::No(|run| &mut run.huge_pages)),
    Opt::new(
        "isolate",
        "Give the guest namespaces of its own, on top of the system call filter",
        Value::No(|run| &mut run.isolate),
    ),
    Opt::new(
        "user",
        "Run the guest as another user and group, by name or number (without GROUP, as in /etc/passwd); takes root",
        Value::One("USER[:GROUP]", |run, value| {
            let identity = ACCOUNTS.identity(text(value)?);
            set(&mut run.user, identity.map_err(|error| format!("{error:#}")))
        }),
    ),
    Opt::new(
        "cgroup",
        "Put the guest into a cgroup that exists: a directory below /sys/fs/cgroup",
        Value::Path("DIR", |run| &mut run.cgroup),
    ),
];

impl RunArgs {
    /// Parses what follows `nabla run`, and how often -v is in it.
    pub fn parse(words: &[OsString]) -> Result<(Self, u8), Stop> {
        let Line { options, words, verbosity } = option::parse(OPTIONS, words)?;
        let mut words = words.into_iter();
        let image = words.next().filter(|image| !image.is_empty());
        let image =
            image.ok_or_else(|| Stop::Mistake("the image of the guest is missing: <IMAGE>".to_owned()))?;
        Ok((Self { image: image.into(), args: words.collect(), ..options }, verbosity))
    }

    /// What clap knows of `nabla run`, for help, completions and manual pages.
    pub fn command() -> Command {
        let image = Arg::new("image").required(true).value_name("IMAGE").help("The guest's image");
        let args = Arg::new("args").num_args(0..).value_name("ARGS").value_parser(value_parser!(OsString));
        Command::new("run")
            .about("Run a guest")
            .after_help(EXAMPLES)
            .arg(image.value_parser(value_parser!(PathBuf)))
            .arg(args.help("Arguments for the guest; after -- if one of them starts with a dash"))
            .args(option::to_clap(OPTIONS))
    }
}

fn set<T>(place: &mut Option<T>, value: Result<T, String>) -> Result<(), String> {
    *place = Some(value?);
    Ok(())
}

fn text(value: &OsStr) -> Result<&str, String> {
    value.to_str().ok_or_else(|| "not valid UTF-8".to_owned())
}

fn parsed<T: FromStr<Err: fmt::Display>>(value: &OsStr) -> Result<T, String> {
    text(value)?.parse().map_err(|error: T::Err| error.to_string())
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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

    fn parse(line: &str) -> Result<(RunArgs, u8), Stop> {
        RunArgs::parse(&line.split(' ').map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn every_option_sets_its_field() {
        let line = "app.nabla --mem 64 --name n --abi spt-v1 --disk a=x,ro --disk=y --console c --net tap0 -p 1:2 \
                    --net-config none --supervise --json-report r --gdb --dumpcore d --x-exec-heap --huge-pages \
                    --isolate --user 1:2 --cgroup g -- one --two";
        let path = |text: &str| Some(PathBuf::from(text));
        let expected = RunArgs {
            image: "app.nabla".into(),
            args: vec!["one".into(), "--two".into()],
            mem: Some(ByteSize::mib(64)),
            name: Some("n".into()),
            abi: Some("spt-v1".parse().unwrap()),
            disk: ["a=x,ro", "y"].map(|disk| DiskSpec::parse(OsStr::new(disk)).unwrap()).to_vec(),
            console: path("c"),
            net: vec![NetSpec::parse(OsStr::new("tap0")).unwrap()],
            publish: vec!["1:2".parse().unwrap()],
            net_config: Some(ConfigStyle::None),
            supervise: true,
            json_report: path("r"),
            gdb: path("127.0.0.1:1234"),
            dumpcore: path("d"),
            x_exec_heap: true,
            huge_pages: true,
            isolate: true,
            user: Some(Identity { uid: 1, gid: 2 }),
            cgroup: path("g"),
        };
        assert_eq!(parse(line), Ok((expected, 0)));
        let options = OPTIONS.iter().map(|(_, options)| options.len()).sum::<usize>();
        assert_eq!(
            line.matches(" --").count() + line.matches(" -p").count(),
            options + 3,
            "one is missing above"
        );
    }

    #[test]
    fn image_comes_first_and_is_needed() {
        assert_eq!(parse("-- app.nabla --mem 3").unwrap().0.args, ["--mem", "3"]);
        for line in ["", "--mem 3", "--", " x"] {
            assert!(matches!(parse(line), Err(Stop::Mistake(text)) if text.contains("<IMAGE>")), "{line:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(5_000))]

        /// The help and the completions promise what is parsed: clap takes the same lines, and they mean the same.
        #[test]
        fn agrees_with_clap(line in prop::collection::vec(prop::sample::select(&[
            "app.nabla", "x", "", "-", "--", "-v", "-h", "run", "64", "1G", "a=b", "a=b,ro", "1:2", "@0", "spt-v2",
            "--mem", "--mem=64", "--mem=", "--mem=x", "--disk", "--disk=d,ro", "--disk=", "--net", "--net=n=@1",
            "--name", "--name=n", "--name=-n", "--name=", "--abi", "--abi=spt-v1", "--console", "--console=c",
            "--supervise", "--supervise=", "--json-report", "--json-report=r", "--x-exec-heap", "--huge-pages",
            "--isolate", "--user", "--user=3:4", "--cgroup", "--cgroup=", "--cgroup=g", "--gdb", "--gdb=", "--gdb=x",
            "--dumpcore=d", "-p", "-p1:2", "-p=1:2", "-vp", "-vvp1:2", "--publish=1:2", "--net-config=none", "--net=new",
            "--net=bridge=b", "--verbose", "--unknown", "-x", "---", "--=x",
        ][..]), 0..8)) {
            let words: Vec<OsString> = line.into_iter().map(OsString::from).collect();
            let expected = option::parse_with_clap(OPTIONS, RunArgs::command(), &words);
            let parsed = RunArgs::parse(&words).ok();
            let expected = expected.map(|Line { options, words, verbosity }| {
                (RunArgs { image: words[0].clone().into(), args: words[1..].to_vec(), ..options }, verbosity)
            });
            prop_assert_eq!(parsed, expected, "{:?}", words);
        }
    }
}
