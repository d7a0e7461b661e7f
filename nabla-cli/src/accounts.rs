//! Users and groups by name or number. A static program has no other source of names than files.

use anyhow::{Context, anyhow, bail};
use nabla_monitor::Identity;
use std::fs;

/// Where names are looked up.
#[derive(Debug)]
pub struct Accounts {
    users: &'static str,
    groups: &'static str,
}

/// Those of this host.
pub const ACCOUNTS: Accounts = Accounts { users: "/etc/passwd", groups: "/etc/group" };

impl Accounts {
    /// The number of a user.
    pub fn user(&self, user: &str) -> anyhow::Result<u32> {
        self.number("user", user, self.users)
    }

    /// The number of a group.
    pub fn group(&self, group: &str) -> anyhow::Result<u32> {
        self.number("group", group, self.groups)
    }

    /// The user and the group in `USER[:GROUP]`. Without a group it is the one that the user is in by default.
    pub fn identity(&self, text: &str) -> anyhow::Result<Identity> {
        if let Some((user, group)) = text.split_once(':') {
            return Ok(Identity { uid: self.user(user)?, gid: self.group(group)? });
        }
        let uid = self.user(text)?;
        let gid =
            field(&read("user", text, self.users)?, 3, |fields| fields.get(2) == Some(&&*uid.to_string()));
        let gid = gid.with_context(|| format!("user {uid} is not in {}: say USER:GROUP", self.users))?;
        Ok(Identity { uid, gid })
    }

    fn number(&self, what: &str, name: &str, file: &str) -> anyhow::Result<u32> {
        match name.parse() {
            // To the system calls that change them, this means no change.
            Ok(u32::MAX) => bail!("{name} is the number of no {what}"),
            Ok(number) if name.bytes().all(|byte| byte.is_ascii_digit()) => Ok(number),
            _ => field(&read(what, name, file)?, 2, |fields| fields.first() == Some(&name))
                .ok_or_else(|| anyhow!("there is no {what} '{name}' in {file}; a number is taken, too")),
        }
    }
}

fn read(what: &str, name: &str, file: &str) -> anyhow::Result<String> {
    fs::read_to_string(file).with_context(|| format!("{what} '{name}' cannot be looked up in {file}"))
}

/// The number in a field of the first line that is meant.
fn field(text: &str, index: usize, is_meant: impl Fn(&[&str]) -> bool) -> Option<u32> {
    let lines = text.lines().map(|line| line.split(':').collect::<Vec<_>>());
    lines.filter(|fields| is_meant(fields)).find_map(|fields| fields.get(index)?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    const USERS: &str =
        "root:x:0:0:root:/root:/bin/sh\nbroken\nalice:x:1000:100::/:/bin/sh\n7:x:8:9::/:/bin/sh\n";
    const GROUPS: &str = "root:x:0:\nusers:x:100:alice\nkvm:x:36:\n";

    fn accounts() -> (Accounts, TempDir) {
        let directory = tempfile::tempdir().unwrap();
        let file = |name, text| {
            let path = directory.path().join(name);
            fs::write(&path, text).unwrap();
            &*path.display().to_string().leak()
        };
        (Accounts { users: file("passwd", USERS), groups: file("group", GROUPS) }, directory)
    }

    #[test]
    fn users_and_groups_are_names_or_numbers() {
        let (accounts, _directory) = accounts();
        for (text, uid, gid) in [
            ("1000:65534", 1000, 65534),
            ("alice", 1000, 100),
            ("1000", 1000, 100),
            ("alice:kvm", 1000, 36),
            ("alice:7", 1000, 7),
            ("42:users", 42, 100),
            ("root", 0, 0),
            // A number is a number, whoever is called so.
            ("7:0", 7, 0),
        ] {
            assert_eq!(accounts.identity(text).unwrap(), Identity { uid, gid }, "{text}");
        }
    }

    #[test]
    fn numbers_are_not_looked_up() {
        let nowhere = Accounts { users: "/nonexistent", groups: "/nonexistent" };
        assert_eq!(nowhere.identity("42:43").unwrap(), Identity { uid: 42, gid: 43 });
        let error = format!("{:#}", nowhere.identity("alice").unwrap_err());
        assert!(
            error.starts_with("user 'alice' cannot be looked up in /nonexistent: No such file"),
            "{error}"
        );
    }

    #[test]
    fn what_is_not_there_is_told() {
        let (accounts, _directory) = accounts();
        for (text, part) in [
            ("", "no user ''"),
            ("bob", "no user 'bob'"),
            ("broken", "no user 'broken'"),
            (":1", "no user ''"),
            ("1000:", "no group ''"),
            ("alice:wheel", "no group 'wheel'"),
            ("-1:0", "no user '-1'"),
            ("+1:0", "no user '+1'"),
            ("1:2:3", "no group '2:3'"),
            ("4294967296:0", "no user '4294967296'"),
            ("4294967295:0", "4294967295 is the number of no user"),
            ("0:4294967295", "4294967295 is the number of no group"),
            ("42", "user 42 is not in"),
        ] {
            let error = accounts.identity(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
