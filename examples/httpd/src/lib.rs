//! What a web server is made of, apart from its network: requests, responses, files.
#![cfg_attr(not(test), no_std)]

extern crate alloc;

mod cache;
mod date;
mod files;
mod request;
mod response;

pub use crate::{
    cache::{Body, Cache},
    date::HttpDate,
    files::{Entry, File, Files, lookup},
    request::{Method, Parsed, Request, parse},
    response::{Head, Status},
};
