//! Requests: RFC 9112, as much of it as a server of files needs.

use crate::response::Status;

/// Fields that a request may have. The receive buffer limits their size.
const FIELDS_MAX: usize = 100;

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
    /// None, and what is to be answered.
    Invalid(Status),
}

/// Reads the request at the start of `bytes`.
#[must_use]
pub fn parse(bytes: &[u8]) -> Parsed<'_> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut parsed = httparse::Request::new(&mut fields);
    let length = match parsed.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Parsed::Partial,
        Err(httparse::Error::TooManyHeaders) => return Parsed::Invalid(Status::TooLarge),
        Err(_) => return Parsed::Invalid(Status::BadRequest),
    };
    match request(&parsed) {
        Some(request) => Parsed::Complete(request, length),
        None => Parsed::Invalid(Status::BadRequest),
    }
}

fn request<'a>(parsed: &httparse::Request<'_, 'a>) -> Option<Request<'a>> {
    // A target is of the characters of a URI (RFC 3986), all of them ASCII.
    let target = parsed.path.filter(|target| target.is_ascii())?;
    let method = match parsed.method? {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        _ => Method::Other,
    };
    let mut keep_alive = parsed.version? == 1;
    for field in &*parsed.headers {
        if field.name.eq_ignore_ascii_case("connection") {
            for option in field.value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
                if option.eq_ignore_ascii_case(b"close") {
                    keep_alive = false;
                } else if option.eq_ignore_ascii_case(b"keep-alive") {
                    keep_alive = true;
                }
            }
        } else if field.name.eq_ignore_ascii_case("transfer-encoding")
            || field.name.eq_ignore_ascii_case("content-length") && field.value != b"0"
        {
            // A body is not read, so nothing after it can be understood.
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
            b"GET /\xc3\xa4 HTTP/1.1\r\n\r\n",
            b"GET / HTTP/1.1\r\nname: a\0b\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01",
        ] {
            assert_eq!(parse(text), Parsed::Invalid(Status::BadRequest), "{text:?}");
        }
    }

    #[test]
    fn more_fields_than_a_hundred_are_too_large() {
        let with = |fields: usize| format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(fields));
        complete(&with(FIELDS_MAX));
        assert_eq!(parse(with(FIELDS_MAX + 1).as_bytes()), Parsed::Invalid(Status::TooLarge));
    }
}
