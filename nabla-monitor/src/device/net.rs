//! Network devices: a tap, and what the guest is told about it.

use super::{DeviceError, DeviceProperties, DeviceSource, OpenDevice};
use nabla_core::{Attachment, DeviceKind, MacAddress};
use nabla_tap::{Tap, TapError, TapErrorKind};
use std::{fmt, io};

/// What a device has whose descriptor is no tap, unless set.
const DEFAULT_MTU: u16 = 1500;

/// A random address that is locally administered and no multicast one.
fn random_mac() -> io::Result<MacAddress> {
    let mut bits = [0; 6];
    rustix::io::retry_on_intr(|| {
        rustix::rand::getrandom(&mut bits, rustix::rand::GetRandomFlags::empty()).map(|_| ())
    })?;
    Ok(MacAddress::local(bits))
}

/// A network device of a guest: a tap that exists, by name or [opened](Tap), and what the guest is told about it.
///
/// Creating taps and giving them addresses is not the monitor's business. A tap that is named is opened when the guest
/// starts; it must be up then.
///
/// ```
/// use nabla_monitor::{MacAddress, NetDevice};
///
/// let device = NetDevice::from("tap0").mac(MacAddress([2, 0, 0, 0, 0, 1]));
/// # let _ = device;
/// ```
#[derive(Debug)]
pub struct NetDevice {
    source: Source,
    mac: Option<MacAddress>,
    mtu: Option<u16>,
}

#[derive(Debug)]
enum Source {
    Name(String),
    Tap(Tap),
}

impl From<String> for NetDevice {
    fn from(name: String) -> Self {
        Self { source: Source::Name(name), mac: None, mtu: None }
    }
}

impl From<&str> for NetDevice {
    fn from(name: &str) -> Self {
        Self::from(name.to_owned())
    }
}

impl From<Tap> for NetDevice {
    fn from(tap: Tap) -> Self {
        Self { source: Source::Tap(tap), mac: None, mtu: None }
    }
}

impl NetDevice {
    /// The MAC address that the guest gets. A random one unless set.
    ///
    /// ```
    /// use nabla_monitor::{MacAddress, NetDevice};
    ///
    /// let device = NetDevice::from("tap0").mac("02:00:00:00:00:01".parse::<MacAddress>()?);
    /// # Ok::<(), nabla_monitor::ParseMacError>(())
    /// ```
    #[must_use]
    pub fn mac(mut self, mac: MacAddress) -> Self {
        self.mac = Some(mac);
        self
    }

    /// The MTU in bytes that the guest is told. The tap's own unless set, and 1500 for what is no tap.
    ///
    /// ```
    /// let device = nabla_monitor::NetDevice::from("tap0").mtu(1400);
    /// ```
    #[must_use]
    pub fn mtu(mut self, bytes: u16) -> Self {
        self.mtu = Some(bytes);
        self
    }
}

impl DeviceSource for NetDevice {
    fn kind(&self) -> DeviceKind {
        DeviceKind::Net
    }

    fn open(self: Box<Self>) -> Result<OpenDevice, DeviceError> {
        Ok((*self).open_net()?)
    }
}

impl NetDevice {
    fn open_net(self) -> Result<OpenDevice, TapError> {
        let tap = match self.source {
            Source::Tap(tap) => tap,
            Source::Name(name) => {
                let tap = Tap::open(&name)?;
                if !tap.is_up()? {
                    return Err(TapError { name: Some(name), kind: TapErrorKind::Down });
                }
                tap
            }
        };
        let fail = |kind| TapError { name: tap.name().map(str::to_owned), kind };
        let mtu = match self.mtu {
            Some(mtu) => mtu,
            None => tap.mtu()?.map_or(Ok(DEFAULT_MTU), |mtu| {
                u16::try_from(mtu).map_err(|_| fail(TapErrorKind::LargeMtu { bytes: mtu }))
            })?,
        };
        let mac = match self.mac {
            Some(mac) => mac,
            None => random_mac().map_err(|source| fail(TapErrorKind::Random { source }))?,
        };
        let interface = tap.name().map(str::to_owned);
        let properties = DeviceProperties::Net(NetInfo { interface, mac, mtu });
        Ok(OpenDevice { descriptor: tap.into(), properties })
    }
}

/// A network device that a guest has.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NetInfo {
    /// The name of the tap; none for a descriptor that is no tap.
    pub interface: Option<String>,
    /// The guest's MAC address.
    pub mac: MacAddress,
    /// The MTU in bytes that the guest is told.
    pub mtu: u16,
}

impl NetInfo {
    pub(super) fn attachment(&self, descriptor: i32) -> Attachment {
        Attachment::Net { mac: self.mac.0, mtu: self.mtu, descriptor }
    }
}

impl fmt::Display for NetInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "net, address {}, MTU {}", self.mac, self.mtu)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_mac_is_local_and_unicast() {
        for _ in 0..100 {
            assert_eq!(random_mac().unwrap().0[0] & 3, 2);
        }
    }

    #[test]
    fn missing_tap_is_an_error_and_not_created() {
        let error = |name| NetDevice::from(name).open_net().unwrap_err();
        assert!(matches!(error("nabla-none0").kind, TapErrorKind::NotFound));
        assert!(matches!(error("").kind, TapErrorKind::Name));
        assert!(matches!(error("tap%d").kind, TapErrorKind::Name));
    }

    #[test]
    fn another_interface_is_no_tap() {
        let error = NetDevice::from("lo").open_net().unwrap_err();
        assert!(!matches!(error.kind, TapErrorKind::NotFound | TapErrorKind::Name), "{error}");
    }
}
