//! The heads of responses.

use crate::date::HttpDate;
use core::{fmt, time::Duration};

/// The status of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Here it is.
    Ok,
    /// It is at the path with a slash after it.
    MovedPermanently,
    /// This is no request.
    BadRequest,
    /// There is no such file.
    NotFound,
    /// Files are only read.
    MethodNotAllowed,
    /// The request has too many fields, or too long ones.
    TooLarge,
    /// The disk cannot be read.
    Internal,
}

impl Status {
    const fn text(self) -> &'static str {
        match self {
            Self::Ok => "200 OK",
            Self::MovedPermanently => "301 Moved Permanently",
            Self::BadRequest => "400 Bad Request",
            Self::NotFound => "404 Not Found",
            Self::MethodNotAllowed => "405 Method Not Allowed",
            Self::TooLarge => "431 Request Header Fields Too Large",
            Self::Internal => "500 Internal Server Error",
        }
    }

    /// What people are told.
    #[must_use]
    pub const fn body(self) -> &'static str {
        match self {
            Self::Ok => "",
            Self::MovedPermanently => "It is a directory.\n",
            Self::BadRequest => "This is no request.\n",
            Self::NotFound => "There is no such file.\n",
            Self::MethodNotAllowed => "Files can only be read.\n",
            Self::TooLarge => "The request is too large.\n",
            Self::Internal => "The disk cannot be read.\n",
        }
    }
}

/// The head of a response.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    /// The status.
    pub status: Status,
    /// Bytes of the body.
    pub length: u64,
    /// The path that was asked for, which tells the type of the body and, for a directory, its place.
    pub path: &'a str,
    /// Whether another request may follow.
    pub keep_alive: bool,
    /// The time since 1970.
    pub now: Duration,
}

impl fmt::Display for Head<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind =
            if self.status == Status::Ok { media_type(self.path) } else { "text/plain; charset=utf-8" };
        write!(
            f,
            "HTTP/1.1 {}\r\nServer: nabla-httpd\r\nDate: {}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n",
            self.status.text(),
            HttpDate(self.now),
            self.length,
        )?;
        match self.status {
            // Relative to what was asked for, so that it leads nowhere else.
            Status::MovedPermanently => {
                write!(f, "Location: ./{}/\r\n", self.path.rsplit('/').next().unwrap_or_default())?;
            }
            Status::MethodNotAllowed => f.write_str("Allow: GET, HEAD\r\n")?,
            _ => {}
        }
        write!(f, "Connection: {}\r\n\r\n", if self.keep_alive { "keep-alive" } else { "close" })
    }
}

fn media_type(path: &str) -> &'static str {
    let name = path.rsplit('/').next().unwrap_or_default();
    match name.rsplit_once('.').map_or("", |(_, ending)| ending) {
        "html" | "htm" => "text/html; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "json" => "application/json",
        "txt" | "md" => "text/plain; charset=utf-8",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "ico" => "image/x-icon",
        "pdf" => "application/pdf",
        "wasm" => "application/wasm",
        "xml" => "application/xml",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn heads_have_what_clients_need() {
        let head = Head {
            status: Status::Ok,
            length: 5,
            path: "a/index.html",
            keep_alive: true,
            now: Duration::from_secs(784_111_777),
        };
        assert_eq!(
            head.to_string(),
            "HTTP/1.1 200 OK\r\nServer: nabla-httpd\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
             Content-Type: text/html; charset=utf-8\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\n"
        );
        let moved =
            Head { status: Status::MovedPermanently, path: "//a/b", keep_alive: false, ..head }.to_string();
        assert!(moved.contains("\r\nLocation: ./b/\r\n") && moved.ends_with("Connection: close\r\n\r\n"));
        assert_eq!(media_type("a.html/b"), "application/octet-stream");
    }
}
