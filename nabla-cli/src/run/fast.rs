//! The way to a running guest that does not lead through clap.
//!
//! Getting clap ready would add 13 % to the time in which a guest starts. So `nabla run` is parsed by hand where it
//! consists of nothing but options in full, their values and positional words. Everything else, mistakes and
//! requests for help included, is left to clap, and a test compares the two.

use super::{
    args::{RunArgs, identity, memory},
    device::DiskSpec,
    net_spec::NetSpec,
};
use nabla_monitor::DEFAULT_MEMORY;
use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt,
    path::PathBuf,
};

/// Parses a whole command line. `None` when it is not as simple as that.
pub fn parse(args: &[OsString]) -> Option<RunArgs> {
    let [_, verb, words @ ..] = args else { return None };
    if verb != "run" {
        return None;
    }
    let mut parser = Parser::default();
    let mut words = words.iter().map(OsString::as_os_str);
    while let Some(word) = words.next() {
        if word == "--" {
            parser.positional.extend(words);
            break;
        }
        match word.as_bytes().strip_prefix(b"--") {
            Some(option) => parser.option(option, &mut words)?,
            None if word.as_bytes().starts_with(b"-") => return None,
            None => parser.positional.push(word),
        }
    }
    parser.finish()
}

#[derive(Default)]
struct Parser<'a> {
    positional: Vec<&'a OsStr>,
    mem: Option<&'a OsStr>,
    name: Option<&'a OsStr>,
    abi: Option<&'a OsStr>,
    disk: Vec<DiskSpec>,
    net: Vec<NetSpec>,
    console: Option<&'a OsStr>,
    supervise: bool,
    json_report: Option<&'a OsStr>,
    x_exec_heap: bool,
    huge_pages: bool,
    isolate: bool,
    user: Option<&'a OsStr>,
    cgroup: Option<&'a OsStr>,
}

impl<'a> Parser<'a> {
    /// Takes an option, given without its dashes, and its value from behind `=` or from `words`.
    fn option(&mut self, option: &'a [u8], words: &mut impl Iterator<Item = &'a OsStr>) -> Option<()> {
        let (name, value) = match option.iter().position(|&byte| byte == b'=') {
            Some(end) => (&option[..end], Some(OsStr::from_bytes(&option[end + 1..]))),
            None => (option, None),
        };
        let flag = match name {
            b"supervise" => Some(&mut self.supervise),
            b"x-exec-heap" => Some(&mut self.x_exec_heap),
            b"huge-pages" => Some(&mut self.huge_pages),
            b"isolate" => Some(&mut self.isolate),
            _ => None,
        };
        if let Some(flag) = flag {
            let first = value.is_none() && !*flag;
            *flag = true;
            return first.then_some(());
        }
        let value = match value {
            Some(value) => value,
            None => words.next().filter(|value| !value.as_bytes().starts_with(b"-"))?,
        };
        if value.is_empty() {
            return None;
        }
        let place = match name {
            b"disk" => return DiskSpec::parse(value).map(|disk| self.disk.push(disk)).ok(),
            b"net" => return NetSpec::parse(value).map(|net| self.net.push(net)).ok(),
            b"mem" => &mut self.mem,
            b"name" => &mut self.name,
            b"abi" => &mut self.abi,
            b"console" => &mut self.console,
            b"json-report" => &mut self.json_report,
            b"user" => &mut self.user,
            b"cgroup" => &mut self.cgroup,
            _ => return None,
        };
        place.replace(value).is_none().then_some(())
    }

    fn finish(self) -> Option<RunArgs> {
        let (image, args) = self.positional.split_first().filter(|(image, _)| !image.is_empty())?;
        Some(RunArgs {
            image: image.into(),
            args: args.iter().map(|&arg| arg.to_owned()).collect(),
            mem: parsed(self.mem, memory)?.unwrap_or(DEFAULT_MEMORY),
            name: parsed(self.name, |name| Ok(name.to_owned()))?,
            abi: parsed(self.abi, |abi| abi.parse().map_err(|_| String::new()))?,
            disk: self.disk,
            net: self.net,
            publish: Vec::new(),
            net_config: None,
            console: self.console.map(PathBuf::from),
            supervise: self.supervise,
            json_report: self.json_report.map(PathBuf::from),
            // These, -p and --net-config take longer than clap does.
            gdb: None,
            dumpcore: None,
            x_exec_heap: self.x_exec_heap,
            huge_pages: self.huge_pages,
            isolate: self.isolate,
            user: parsed(self.user, identity)?,
            cgroup: self.cgroup.map(PathBuf::from),
        })
    }
}

/// The value of an option that may be absent; `None` when it is there and wrong.
fn parsed<T>(value: Option<&OsStr>, parse: impl Fn(&str) -> Result<T, String>) -> Option<Option<T>> {
    match value {
        None => Some(None),
        Some(value) => parse(value.to_str()?).ok().map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser as _;
    use proptest::prelude::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    fn with_clap(args: &[OsString]) -> Result<RunArgs, clap::Error> {
        match Cli::try_parse_from(args)?.command {
            Command::Run(args) => Ok(*args),
            other => panic!("{other:?} is not a run"),
        }
    }

    #[test]
    fn ordinary_lines_are_parsed() {
        for line in [
            "nabla run app.nabla",
            "nabla run app.nabla one two -- --three",
            "nabla run -- app.nabla --mem 3",
            "nabla run app.nabla --mem=64 --disk a=x,ro --disk=b=y --net tap0 -- x",
            "nabla run --supervise --json-report r.json app.nabla --huge-pages --isolate --x-exec-heap",
            "nabla run --name n --abi spt-v1 --console c --user 1:2 --cgroup /c app.nabla",
        ] {
            let args = words(line);
            assert_eq!(parse(&args).as_ref(), with_clap(&args).ok().as_ref(), "{line}");
            assert!(parse(&args).is_some(), "{line}");
        }
    }

    #[test]
    fn everything_else_is_left_to_clap() {
        for line in [
            "nabla",
            "nabla inspect app.nabla",
            "nabla run",
            "nabla -v run app.nabla",
            "nabla run -v app.nabla",
            "nabla run app.nabla --help",
            "nabla run app.nabla --me 64",
            "nabla run app.nabla --mem",
            "nabla run app.nabla --mem -1",
            "nabla run app.nabla --mem 64 --mem 64",
            "nabla run app.nabla --isolate --isolate",
            "nabla run app.nabla --isolate=yes",
            "nabla run app.nabla --disk x,rw",
            "nabla run app.nabla --gdb",
            "nabla run app.nabla --dumpcore d",
        ] {
            assert_eq!(parse(&words(line)), None, "{line}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(5_000))]

        /// What is parsed here means what it means to clap.
        #[test]
        fn agrees_with_clap(line in prop::collection::vec(prop::sample::select(&[
            "app.nabla", "x", "", "-", "--", "-v", "-h", "run", "64", "1G", "a=b", "a=b,ro", "1:2", "@0", "spt-v2",
            "--mem", "--mem=64", "--mem=", "--mem=x", "--disk", "--disk=d,ro", "--disk=", "--net", "--net=n=@1",
            "--name", "--name=n", "--name=-n", "--name=", "--abi", "--abi=spt-v1", "--console", "--console=c",
            "--supervise", "--supervise=", "--json-report", "--json-report=r", "--x-exec-heap", "--huge-pages",
            "--isolate", "--user", "--user=3:4", "--cgroup", "--cgroup=", "--cgroup=g", "--gdb", "--dumpcore=d", "-p", "-p1:2", "--net-config=none", "--net=new", "--net=bridge=b", "--unknown", "---", "--=x",
        ][..]), 0..8)) {
            let mut args = words("nabla run");
            args.extend(line.into_iter().map(OsString::from));
            if let Some(parsed) = parse(&args) {
                let expected = with_clap(&args);
                prop_assert!(expected.is_ok(), "clap refuses {args:?}: {}", expected.unwrap_err());
                prop_assert_eq!(parsed, expected.unwrap(), "{:?}", args);
            }
        }
    }
}
