//! Redirections: whatever one interface receives, another one sends.
//!
//! The ingress queueing discipline, a u32 filter that fits every frame, and the mirred action: what every kernel has that
//! has traffic control at all.

use crate::{
    change::Change,
    error::{Error, ErrorKind},
    link::{Link, object},
    network::Network,
    owned::Owned,
    owner::Owner,
};
use linux_raw_sys::if_ether::ETH_P_ALL;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    RouteNetlinkMessage,
    tc::{
        TcAction, TcActionAttribute, TcActionMirrorOption, TcActionOption, TcActionType, TcAttribute,
        TcFilterU32Option, TcHandle, TcMessage, TcMirror, TcMirrorActionType, TcOption, TcU32Key,
        TcU32Selector, TcU32SelectorFlags,
    },
};
use rustix::io::Errno;
use std::io;

/// The preference of the filters: lower ones come first.
const PREFERENCE: u32 = 0x4e42;
/// As 16 bits in network byte order.
const EVERY_PROTOCOL: u32 = ETH_P_ALL << 8;
/// In the cookie: the queueing discipline was made for the filter.
const QDISC_IS_OURS: u8 = 1;
/// The parent of filters on what comes in, of `ingress` as of `clsact`.
const INGRESS: TcHandle = TcHandle { major: 0xffff, minor: 0xfff2 };

/// A redirection that somebody made with this library.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Redirect {
    pub owner: Owner,
    /// Index of the interface that sends; 0 when it is gone.
    pub target: u32,
    /// Whether the queueing discipline was made for it.
    pub qdisc: bool,
}

impl Network {
    /// Has everything that `from` receives sent by `to`, until this is undone. The host does not see any of it then.
    ///
    /// ```
    /// # if !nabla_testkit::need::tap() { return Ok(()) }
    /// use nabla_net::{Network, TapOptions};
    ///
    /// let network = Network::isolated()?;
    /// let _pair = network.create_veth("eth0", "peer")?;
    /// let tap = network.create_tap(&TapOptions::new().name("tap0"))?;
    /// let there = network.redirect("eth0", "tap0")?;
    /// let back = network.redirect("tap0", "eth0")?;
    /// assert!(network.is_redirected("eth0")?);
    /// there.release()?;
    /// assert!(!network.is_redirected("eth0")?);
    /// # drop((tap, back));
    /// # Ok::<(), nabla_net::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// When one of them does not exist, `from` is redirected already, or the kernel refuses or lacks something.
    pub fn redirect(&self, from: &str, to: &str) -> Result<Owned<Link>, Error> {
        let owner = Owner::this_process()?;
        let (source, target) = (self.link(from)?, self.link(to)?);
        if redirect_of(self, &source)?.is_some() {
            return Err(Error::new("redirect", object(from), ErrorKind::Busy));
        }
        let qdisc = add_qdisc(self, &source)?;
        let index = source.index;
        // From here on there is something to undo, whatever comes.
        let remove = remove_redirect(index, &source.name, qdisc);
        let redirected = Owned::new(source, self, remove);
        let cookie = owner.cookie(if qdisc { QDISC_IS_OURS } else { 0 });
        self.routing()
            .change(
                RouteNetlinkMessage::NewTrafficFilter(filter(index, target.index, &cookie)),
                NLM_F_CREATE | NLM_F_EXCL,
            )
            .map_err(|error| {
                missing(&error, "redirect", from, "CONFIG_NET_CLS_U32 and CONFIG_NET_ACT_MIRRED")
            })?;
        Ok(redirected)
    }

    /// Whether somebody has redirected what an interface receives with [`Network::redirect`].
    ///
    /// ```
    /// # if !nabla_testkit::need::tap() { return Ok(()) }
    /// let network = nabla_net::Network::isolated()?;
    /// let _pair = network.create_veth("eth0", "peer")?;
    /// assert!(!network.is_redirected("eth0")?);
    /// let redirection = network.redirect("eth0", "peer")?;
    /// assert!(network.is_redirected("eth0")?);
    /// # drop(redirection);
    /// # Ok::<(), nabla_net::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// When there is no such interface, or the kernel does not tell.
    pub fn is_redirected(&self, name: &str) -> Result<bool, Error> {
        Ok(redirect_of(self, &self.link(name)?)?.is_some())
    }
}

/// The redirection of what an interface receives.
pub(crate) fn redirect_of(network: &Network, link: &Link) -> Result<Option<Redirect>, Error> {
    let mut request = TcMessage::default();
    request.header.index = link.index.cast_signed();
    request.header.parent = INGRESS;
    let answers = match network.routing().list(&RouteNetlinkMessage::GetTrafficFilter(request)) {
        // There is no queueing discipline to which filters could belong.
        Err(error) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => return Ok(None),
        answers => {
            answers.map_err(|error| Error::system("list the filters of", object(&link.name), error))?
        }
    };
    Ok(answers.iter().find_map(|answer| match answer {
        RouteNetlinkMessage::NewTrafficFilter(message) => from_filter(message),
        _ => None,
    }))
}

fn from_filter(message: &TcMessage) -> Option<Redirect> {
    if message.header.info >> 16 != PREFERENCE {
        return None;
    }
    let options = message.attributes.iter().find_map(|attribute| match attribute {
        TcAttribute::Options(options) => Some(options),
        _ => None,
    })?;
    let actions = options.iter().find_map(|option| match option {
        TcOption::U32(TcFilterU32Option::Action(actions)) => Some(actions),
        _ => None,
    })?;
    let cookie =
        actions.iter().flat_map(|action| &action.attributes).find_map(|attribute| match attribute {
            TcActionAttribute::Cookie(cookie) => Some(cookie),
            _ => None,
        })?;
    let (owner, flags) = Owner::from_cookie(cookie)?;
    let options =
        actions.iter().flat_map(|action| &action.attributes).filter_map(|attribute| match attribute {
            TcActionAttribute::Options(options) => Some(options),
            _ => None,
        });
    let target = options.flatten().find_map(|option| match option {
        TcActionOption::Mirror(TcActionMirrorOption::Parms(mirror)) => Some(mirror.ifindex),
        _ => None,
    })?;
    Some(Redirect { owner, target, qdisc: flags & QDISC_IS_OURS != 0 })
}

/// Adds the queueing discipline, and tells whether it was not there.
fn add_qdisc(network: &Network, link: &Link) -> Result<bool, Error> {
    let message = RouteNetlinkMessage::NewQueueDiscipline(qdisc(link.index));
    match network.routing().change(message, NLM_F_CREATE | NLM_F_EXCL) {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(Errno::EXIST.raw_os_error()) => Ok(false),
        Err(error) => {
            Err(missing(&error, "redirect", &link.name, "CONFIG_NET_SCH_INGRESS (modprobe sch_ingress)"))
        }
    }
}

/// Undoes a redirection, and removes the queueing discipline if it was made for it.
pub(crate) fn remove_redirect(index: u32, name: &str, qdisc: bool) -> Change {
    let message = if qdisc {
        // Filters go with it.
        RouteNetlinkMessage::DelQueueDiscipline(self::qdisc(index))
    } else {
        let mut message = TcMessage::default();
        message.header.index = index.cast_signed();
        message.header.parent = INGRESS;
        message.header.info = PREFERENCE << 16 | EVERY_PROTOCOL;
        RouteNetlinkMessage::DelTrafficFilter(message)
    };
    // There is no such queueing discipline any more.
    Change::new("undo the redirection of", object(name), message).missing(Errno::INVAL)
}

/// What is missing in the kernel looks as if a file were.
fn missing(error: &io::Error, operation: &'static str, name: &str, needs: &'static str) -> Error {
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOENT) => Error::new(operation, object(name), ErrorKind::Unsupported { needs }),
        code => {
            let error = code.map_or_else(|| io::Error::other(error.to_string()), io::Error::from);
            Error::system(operation, object(name), error)
        }
    }
}

fn qdisc(index: u32) -> TcMessage {
    let mut message = TcMessage::default();
    message.header.index = index.cast_signed();
    message.header.handle = TcHandle { major: 0xffff, minor: 0 };
    message.header.parent = TcHandle::INGRESS;
    message.attributes.push(TcAttribute::Kind("ingress".to_owned()));
    message
}

fn filter(index: u32, target: u32, cookie: &[u8]) -> TcMessage {
    let mut mirror = TcMirror::default();
    mirror.generic.action = TcActionType::Stolen;
    mirror.eaction = TcMirrorActionType::EgressRedir;
    mirror.ifindex = target;
    let mut action = TcAction::default();
    action.attributes = vec![
        TcActionAttribute::Kind("mirred".to_owned()),
        TcActionAttribute::Options(vec![TcActionOption::Mirror(TcActionMirrorOption::Parms(mirror))]),
        TcActionAttribute::Cookie(cookie.to_vec()),
    ];
    // One comparison that never fails: nothing of the first word is looked at.
    let mut selector = TcU32Selector::default();
    selector.flags = TcU32SelectorFlags::Terminal;
    selector.nkeys = 1;
    selector.keys = vec![TcU32Key::default()];
    let mut message = TcMessage::default();
    message.header.index = index.cast_signed();
    message.header.parent = INGRESS;
    message.header.info = PREFERENCE << 16 | EVERY_PROTOCOL;
    message.attributes.push(TcAttribute::Kind("u32".to_owned()));
    message.attributes.push(TcAttribute::Options(vec![
        TcOption::U32(TcFilterU32Option::Selector(selector)),
        TcOption::U32(TcFilterU32Option::Action(vec![action])),
    ]));
    message
}
