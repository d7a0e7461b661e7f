//! Requests: RFC 9112, as much of it as a server of files needs.

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// The file.
    Get,
    /// What would be said about the file.
    Head,
    /// Something that is not served.
    Other,
}

/// A request without a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request<'a> {
    /// What is asked for.
    pub method: Method,
    /// Path and query.
    pub target: &'a str,
    /// Whether another request may follow on the connection.
    pub keep_alive: bool,
}

/// What the start of a connection's bytes is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parsed<'a> {
    /// A request of this many bytes.
    Complete(Request<'a>, usize),
    /// The start of one.
    Partial,
    /// None.
    Invalid,
}

/// Reads the request at the start of `bytes`.
#[must_use]
pub fn parse(bytes: &[u8]) -> Parsed<'_> {
    // Empty lines in front of a request are skipped (section 2.2).
    let start = bytes.iter().position(|byte| !matches!(byte, b'\r' | b'\n')).unwrap_or(bytes.len());
    let head = &bytes[start..];
    let Some((length, head)) = head_of(head) else {
        return if head.contains(&0) { Parsed::Invalid } else { Parsed::Partial };
    };
    match request(head) {
        Some(request) => Parsed::Complete(request, start + length),
        None => Parsed::Invalid,
    }
}

/// The lines in front of the first empty one, and the length with that.
fn head_of(bytes: &[u8]) -> Option<(usize, &str)> {
    let mut line_start = 0;
    for (at, _) in bytes.iter().enumerate().filter(|&(_, &byte)| byte == b'\n') {
        let line = &bytes[line_start..at];
        if line.is_empty() || line == b"\r" {
            // What is no text becomes no request.
            return Some((at + 1, core::str::from_utf8(&bytes[..line_start]).unwrap_or("")));
        }
        line_start = at + 1;
    }
    None
}

fn request(head: &str) -> Option<Request<'_>> {
    let mut lines = head.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line));
    let mut words = lines.next()?.split(' ');
    let (method, target, version) = (words.next()?, words.next()?, words.next()?);
    let is_visible = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    if words.next().is_some() || !is_visible(target) || !is_visible(method) {
        return None;
    }
    let mut keep_alive = match version {
        "HTTP/1.1" => true,
        "HTTP/1.0" => false,
        _ => return None,
    };
    let method = match method {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        _ => Method::Other,
    };
    for line in lines.filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':')?;
        if name.is_empty() || name.bytes().any(|byte| byte.is_ascii_whitespace()) {
            return None;
        }
        let value = value.trim_matches([' ', '\t']);
        if name.eq_ignore_ascii_case("connection") {
            for option in value.split(',').map(str::trim) {
                if option.eq_ignore_ascii_case("close") {
                    keep_alive = false;
                } else if option.eq_ignore_ascii_case("keep-alive") {
                    keep_alive = true;
                }
            }
        } else if name.eq_ignore_ascii_case("transfer-encoding")
            || name.eq_ignore_ascii_case("content-length") && value != "0"
        {
            // A body is not read, so nothing behind it can be understood.
            keep_alive = false;
        }
    }
    Some(Request { method, target, keep_alive: keep_alive && method != Method::Other })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complete(text: &str) -> Request<'_> {
        match parse(text.as_bytes()) {
            Parsed::Complete(request, length) if length == text.len() => request,
            other => panic!("{text:?}: {other:?}"),
        }
    }

    #[test]
    fn requests_are_read() {
        let request = complete("GET /a?b HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(request, Request { method: Method::Get, target: "/a?b", keep_alive: true });
        assert!(!complete("GET / HTTP/1.0\r\n\r\n").keep_alive);
        assert!(complete("GET / HTTP/1.0\r\nconnection: Keep-Alive\r\n\r\n").keep_alive);
        assert!(!complete("GET / HTTP/1.1\r\nConnection: foo, close\r\n\r\n").keep_alive);
        assert!(!complete("GET / HTTP/1.1\r\nContent-Length: 5\r\n\r\n").keep_alive);
        assert!(complete("GET / HTTP/1.1\r\nContent-Length: 0\r\n\r\n").keep_alive);
        assert!(!complete("GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n").keep_alive);
        assert_eq!(complete("HEAD / HTTP/1.1\n\n").method, Method::Head);
        assert_eq!(complete("POST / HTTP/1.1\r\n\r\n").method, Method::Other);
        assert_eq!(complete("\r\nGET / HTTP/1.1\r\n\r\n").target, "/");
    }

    #[test]
    fn pipelined_requests_are_read_one_by_one() {
        let text = b"GET /1 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\n\r\n";
        let Parsed::Complete(first, length) = parse(text) else { panic!("no request") };
        assert_eq!(first.target, "/1");
        assert!(matches!(parse(&text[length..]), Parsed::Complete(second, _) if second.target == "/2"));
    }

    #[test]
    fn starts_are_partial_at_every_length() {
        let text = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
        for length in 0..text.len() {
            assert_eq!(parse(&text[..length]), Parsed::Partial, "{length}");
        }
    }

    #[test]
    fn what_is_no_request_is_invalid() {
        for text in [
            &b"GET /\r\n\r\n"[..],
            b"GET  / HTTP/1.1\r\n\r\n",
            b"GET / HTTP/2\r\n\r\n",
            b"GET / HTTP/1.1 x\r\n\r\n",
            b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
            b"GET / HTTP/1.1\r\nname : x\r\n\r\n",
            b"GET / HTTP/1.1\r\n : x\r\n\r\n",
            b"GET /a\rSet-Cookie:x HTTP/1.1\r\n\r\n",
            b"\xff\xfe / HTTP/1.1\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01",
        ] {
            assert_eq!(parse(text), Parsed::Invalid, "{text:?}");
        }
    }
}
