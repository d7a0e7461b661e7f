//! What a guest is told about its network, and how guests of each kind are told.

mod cidr;
mod net_config;
mod rumprun;
mod style;

pub use self::{
    cidr::{Cidr, ParseCidrError},
    net_config::{NetConfig, NetRoute},
    rumprun::{Rumprun, RumprunError},
    style::{ConfigStyle, ParseConfigStyleError},
};
