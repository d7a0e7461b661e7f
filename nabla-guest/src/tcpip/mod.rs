//! TCP/IP over a network device, by smoltcp.
//!
//! [`Device`] is a [`Net`](crate::Net) as smoltcp wants devices to be. [`Stack`] puts an interface, its sockets and DHCP
//! together, and waits for what comes next; [`Settings`] are its addresses, from the guest's arguments.
//!
//! ```ignore
//! use nabla_guest::{Net, tcpip::{Settings, Stack, smoltcp::socket::tcp}};
//!
//! let (settings, _rest) = Settings::from_args()?;
//! let mut stack = Stack::new(Net::acquire("service0")?, &settings);
//! let buffer = || tcp::SocketBuffer::new(vec![0; 4096]);
//! let mut socket = tcp::Socket::new(buffer(), buffer());
//! socket.listen(7)?;
//! let echo = stack.sockets().add(socket);
//! loop {
//!     stack.poll();
//!     let socket = stack.sockets().get_mut::<tcp::Socket>(echo);
//!     // ..
//!     stack.wait()?;
//! }
//! ```

mod arp;
mod device;
mod seed;
mod settings;
mod stack;

pub use self::{
    device::Device,
    settings::{Route, Settings, SettingsError},
    stack::Stack,
};
pub use smoltcp;
