//! What a guest is told about its network, and how guests of each kind are told.

mod cidr;
mod config;
mod style;

pub use self::{
    cidr::{Cidr, ParseCidrError},
    config::{NetConfig, NetRoute},
    style::{ConfigStyle, ParseConfigStyleError, Rumprun},
};
