//! Whose something is: what is written on things that the kernel keeps, so that they can be cleaned up after a crash.

use crate::procfs::{self, Process};
use std::{fmt, path::Path};

/// What starts the alias of an interface that somebody made with this library.
const ALIAS: &str = "nabla:";
/// What starts the cookie of a redirection.
const COOKIE: u8 = b'N';

/// A process that made something: enough to tell whether it is still alive.
///
/// Process ids are used again, so the time at which the process started belongs to it; and they mean something in their
/// process namespace only. Processes of other namespaces are judged where they can be seen, as from the host.
///
/// ```
/// use nabla_net::Owner;
///
/// let owner = Owner::this_process()?;
/// assert!(owner.is_alive());
/// assert_eq!(Owner::from_alias(&owner.to_string()), Some(owner));
/// assert_eq!(Owner::from_alias("uplink to the lab"), None);
/// # Ok::<(), nabla_net::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// The inode of the process namespace.
    namespace: u32,
    pid: u32,
    /// Clock ticks since the machine started; 48 bits.
    started: u64,
}

impl Owner {
    /// The calling process.
    ///
    /// ```
    /// let owner = nabla_net::Owner::this_process()?;
    /// assert_eq!(owner.pid(), std::process::id());
    /// # Ok::<(), nabla_net::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// When /proc cannot be read.
    pub fn this_process() -> Result<Self, crate::Error> {
        // By the link: /proc may be of another process namespace, in which this one has another id.
        let this = Path::new("/proc/self");
        let fail = |error| crate::Error::system("read", this.display().to_string(), error);
        let namespace = procfs::namespace_of(this).map_err(fail)?;
        let started = procfs::start_time(this).map_err(fail)?;
        Ok(Self { namespace, pid: std::process::id(), started: started & 0xffff_ffff_ffff })
    }

    /// Its process id.
    ///
    /// ```
    /// assert_eq!(nabla_net::Owner::this_process()?.pid(), std::process::id());
    /// # Ok::<(), nabla_net::Error>(())
    /// ```
    #[must_use]
    pub const fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether the process still runs. One that cannot be seen from here does: see [`Owner::is_seen`].
    ///
    /// ```
    /// assert!(nabla_net::Owner::this_process()?.is_alive());
    /// # Ok::<(), nabla_net::Error>(())
    /// ```
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.look() != Some(false)
    }

    /// Whether it can be told from here if the process still runs: some process of its process namespace can be seen.
    ///
    /// ```
    /// assert!(nabla_net::Owner::this_process()?.is_seen());
    /// # Ok::<(), nabla_net::Error>(())
    /// ```
    #[must_use]
    pub fn is_seen(&self) -> bool {
        self.look().is_some()
    }

    /// Whether it still runs, if that can be told.
    pub(crate) fn look(&self) -> Option<bool> {
        match procfs::find(self.namespace, self.pid) {
            Process::Started(started) => Some(started & 0xffff_ffff_ffff == self.started),
            Process::Missing => Some(false),
            Process::Unseen => None,
        }
    }

    /// The owner that the alias of an interface names.
    ///
    /// ```
    /// use nabla_net::Owner;
    ///
    /// let owner = Owner::this_process()?;
    /// assert_eq!(Owner::from_alias(&owner.to_string()), Some(owner));
    /// assert_eq!(Owner::from_alias("uplink"), None);
    /// # Ok::<(), nabla_net::Error>(())
    /// ```
    #[must_use]
    pub fn from_alias(alias: &str) -> Option<Self> {
        let mut parts = alias.strip_prefix(ALIAS)?.splitn(4, ':');
        let mut number = || parts.next()?.parse().ok();
        let (namespace, pid, started) = (number()?, number()?, number()?);
        Some(Self { namespace: u32::try_from(namespace).ok()?, pid: u32::try_from(pid).ok()?, started })
    }

    /// Sixteen bytes for the cookie of a traffic control action, with eight bits more.
    pub(crate) fn cookie(self, flags: u8) -> [u8; 16] {
        let mut cookie = [0; 16];
        cookie[0] = COOKIE;
        cookie[1] = flags;
        cookie[2..8].copy_from_slice(&self.started.to_be_bytes()[2..]);
        cookie[8..12].copy_from_slice(&self.pid.to_be_bytes());
        cookie[12..].copy_from_slice(&self.namespace.to_be_bytes());
        cookie
    }

    /// What [`Self::cookie`] was given.
    pub(crate) fn from_cookie(cookie: &[u8]) -> Option<(Self, u8)> {
        let &[COOKIE, flags, a, b, c, d, e, f, ref rest @ ..] = cookie else { return None };
        let (pid, namespace) = rest.split_first_chunk::<4>()?;
        Some((
            Self {
                namespace: u32::from_be_bytes(namespace.try_into().ok()?),
                pid: u32::from_be_bytes(*pid),
                started: u64::from_be_bytes([0, 0, a, b, c, d, e, f]),
            },
            flags,
        ))
    }
}

/// The alias of an interface.
impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{ALIAS}{}:{}:{}", self.namespace, self.pid, self.started)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_lives_and_others_of_its_id_do_not() {
        let owner = Owner::this_process().unwrap();
        assert!(owner.is_alive());
        assert!(!Owner { started: owner.started + 1, ..owner }.is_alive());
        assert!(!Owner { pid: u32::MAX, ..owner }.is_alive());
        let elsewhere = Owner { pid: u32::MAX, namespace: owner.namespace + 1, ..owner };
        assert!(elsewhere.is_alive() && !elsewhere.is_seen());
    }

    #[test]
    fn aliases_and_cookies_keep_everything() {
        let owner = Owner { namespace: u32::MAX, pid: 4_194_304, started: 0xffff_ffff_ffff };
        assert_eq!(Owner::from_alias(&owner.to_string()), Some(owner));
        assert_eq!(Owner::from_alias(&format!("{owner}:mac=02:00:00:00:00:01")), Some(owner));
        assert_eq!(Owner::from_cookie(&owner.cookie(3)), Some((owner, 3)));
        for alias in ["", "nabla:", "nabla:1:2", "nabla:1:2:x", "nabla:4294967296:2:3", "Nabla:1:2:3"] {
            assert_eq!(Owner::from_alias(alias), None, "{alias}");
        }
        for cookie in [&b""[..], b"N", &[b'N'; 15], &[b'N'; 17], &[b'M'; 16]] {
            assert_eq!(Owner::from_cookie(cookie), None, "{cookie:?}");
        }
    }
}
