//! JSON as Solo5's elftool reads it: with the line of every value, for messages, and more lenient than the
//! standard. Commas between the elements of arrays and objects may be missing, repeated or trailing, what follows
//! the outermost value is ignored, and a string ends at its first NUL.

/// How deep arrays and objects may be nested.
const MAX_DEPTH: usize = 128;

/// A value and the line on which it starts, from 1.
#[derive(Debug, Clone, PartialEq)]
pub struct Value {
    pub line: usize,
    pub content: Content,
}

/// What a value is.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    Null,
    Boolean,
    String(Vec<u8>),
    /// Saturated to 64 bits.
    Integer(i64),
    /// A number with a fraction or an exponent.
    Real,
    Array(Vec<Value>),
    /// Members in order; names may repeat.
    Object(Vec<(Vec<u8>, Value)>),
}

impl Content {
    /// What messages call it.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "NULL",
            Self::Boolean => "BOOLEAN",
            Self::String(_) => "STRING",
            Self::Integer(_) => "INTEGER",
            Self::Real => "REAL",
            Self::Array(_) => "ARRAY",
            Self::Object(_) => "OBJECT",
        }
    }
}

/// Parses the first value in `text`. The error is a sentence with the line.
pub fn parse(text: &[u8]) -> Result<Value, String> {
    Reader { rest: text, line: 1 }.value(0)
}

struct Reader<'a> {
    rest: &'a [u8],
    line: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    fn next(&mut self) -> Option<u8> {
        let (&byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        self.line += usize::from(byte == b'\n');
        Some(byte)
    }

    fn skip_space(&mut self) -> Result<u8, String> {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.next();
        }
        self.peek().ok_or_else(end)
    }

    fn error<T>(&self, message: impl std::fmt::Display) -> Result<T, String> {
        Err(format!("{message} on line {} in JSON data", self.line))
    }

    fn unexpected<T>(&self, byte: u8) -> Result<T, String> {
        self.error(format_args!("unexpected '{}'", shown(byte)))
    }

    fn value(&mut self, depth: usize) -> Result<Value, String> {
        let line = self.line;
        let first = self.skip_space()?;
        if depth > MAX_DEPTH {
            return self.error("too many nested values");
        }
        let content = match first {
            b'f' => self.word("false", Content::Boolean)?,
            b'n' => self.word("null", Content::Null)?,
            b't' => self.word("true", Content::Boolean)?,
            b'{' => Content::Object(self.series(b'}', |reader| reader.member(depth))?),
            b'[' => Content::Array(self.series(b']', |reader| reader.value(depth + 1))?),
            b'"' => Content::String(self.string()?),
            b'-' | b'0'..=b'9' => self.number()?,
            byte => return self.unexpected(byte),
        };
        Ok(Value { line, content })
    }

    fn word(&mut self, word: &str, content: Content) -> Result<Content, String> {
        for expected in word.bytes() {
            match self.next() {
                None => return Err(end()),
                Some(byte) if byte == expected => {}
                Some(_) => return self.error(format_args!("expected {word}")),
            }
        }
        Ok(content)
    }

    fn series<T>(
        &mut self,
        last: u8,
        mut element: impl FnMut(&mut Self) -> Result<T, String>,
    ) -> Result<Vec<T>, String> {
        self.next();
        let mut elements = Vec::new();
        loop {
            match self.skip_space()? {
                b',' if elements.is_empty() => return self.error("missing value before comma"),
                b',' => {
                    self.next();
                }
                byte if byte == last => {
                    self.next();
                    return Ok(elements);
                }
                _ => elements.push(element(self)?),
            }
        }
    }

    fn member(&mut self, depth: usize) -> Result<(Vec<u8>, Value), String> {
        let name = self.string()?;
        let Ok(b':') = self.skip_space() else {
            return self.error("expected colon in object element");
        };
        self.next();
        Ok((name, self.value(depth + 1)?))
    }

    fn string(&mut self) -> Result<Vec<u8>, String> {
        if self.next().ok_or_else(end)? != b'"' {
            return self.error("missing quote from string");
        }
        let mut bytes = Vec::new();
        loop {
            match self.next().ok_or_else(end)? {
                b'"' => break,
                b'\\' => self.escape(&mut bytes)?,
                byte @ b' '.. => bytes.push(byte),
                byte if is_space(byte) => return self.error("unescaped whitespace"),
                byte => return self.error(format_args!("unknown byte (0x{byte:02x})")),
            }
        }
        let length = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
        bytes.truncate(length);
        Ok(bytes)
    }

    fn escape(&mut self, bytes: &mut Vec<u8>) -> Result<(), String> {
        bytes.push(match self.next().ok_or_else(end)? {
            byte @ (b'"' | b'/' | b'\\') => byte,
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => return self.code_unit(bytes),
            byte => return self.error(format_args!("unknown escape code '\\{}'", shown(byte))),
        });
        Ok(())
    }

    /// Four hexadecimal digits, in UTF-8; halves of surrogate pairs each on their own.
    fn code_unit(&mut self, bytes: &mut Vec<u8>) -> Result<(), String> {
        let mut unit = 0_u16;
        for _ in 0..4 {
            let byte = self.next().ok_or_else(end)?;
            match char::from(byte).to_digit(16).and_then(|digit| u16::try_from(digit).ok()) {
                Some(digit) => unit = unit << 4 | digit,
                None => return self.error("expected hex digit"),
            }
        }
        let [high, low] = unit.to_be_bytes();
        let tail = |bits: u8| 0x80 | bits & 0x3f;
        match unit {
            0..0x80 => bytes.push(low),
            0x80..0x800 => bytes.extend([0xc0 | high << 2 | low >> 6, tail(low)]),
            0x800.. => bytes.extend([0xe0 | high >> 4, tail(high << 2 | low >> 6), tail(low)]),
        }
        Ok(())
    }

    fn number(&mut self) -> Result<Content, String> {
        let start = self.rest;
        if self.peek() == Some(b'-') {
            self.next();
        }
        match self.peek() {
            Some(b'0') => {
                self.next();
            }
            Some(b'1'..=b'9') => self.digits(),
            Some(byte) => return self.unexpected(byte),
            None => return Err(end()),
        }
        let mut real = false;
        if self.peek() == Some(b'.') {
            real = true;
            self.next();
            self.digits();
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            real = true;
            self.next();
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.next();
            }
            self.digits();
        }
        match self.peek() {
            None | Some(b',' | b']' | b'}') => {}
            Some(byte) if is_space(byte) => {}
            Some(byte) => return self.unexpected(byte),
        }
        let text = &start[..start.len() - self.rest.len()];
        Ok(if real { Content::Real } else { Content::Integer(integer(text)) })
    }

    fn digits(&mut self) {
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.next();
        }
    }
}

fn integer(text: &[u8]) -> i64 {
    let negative = text.starts_with(b"-");
    let limit = if negative { i64::MIN } else { i64::MAX };
    std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).unwrap_or(limit)
}

/// A byte in a message.
fn shown(byte: u8) -> String {
    match byte {
        b' '..=b'~' => char::from(byte).to_string(),
        byte => byte.escape_ascii().to_string(),
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | 9..=13)
}

fn end() -> String {
    "premature EOF in JSON data".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(text: &str) -> Content {
        parse(text.as_bytes()).unwrap().content
    }

    fn integers(values: &[i64]) -> Content {
        Content::Array(values.iter().map(|&n| Value { line: 1, content: Content::Integer(n) }).collect())
    }

    #[test]
    fn commas_are_optional() {
        for text in ["[1,2]", "[1 2]", "[1,,2]", "[1,2,]", " [ 1 , 2 , , ] garbage"] {
            assert_eq!(content(text), integers(&[1, 2]), "{text}");
        }
    }

    #[test]
    fn scalars_parse() {
        for (text, expected) in [
            ("true", Content::Boolean),
            ("null", Content::Null),
            ("-0", Content::Integer(0)),
            ("99999999999999999999", Content::Integer(i64::MAX)),
            ("-99999999999999999999", Content::Integer(i64::MIN)),
            ("1.", Content::Real),
            ("1e", Content::Real),
            ("-2.5E+3", Content::Real),
            (r#""a\u0041\u00e9\u20ac\n\/""#, Content::String("aAé€\n/".into())),
            (r#""a\u0000b""#, Content::String("a".into())),
        ] {
            assert_eq!(content(text), expected, "{text}");
        }
    }

    #[test]
    fn values_know_their_line() {
        let Content::Object(members) = content("{\n\"a\":\n1,\n\"b\": [\n2,\n3] }") else {
            panic!("no object")
        };
        let lines: Vec<usize> = members.iter().map(|(_, value)| value.line).collect();
        // After the colon, before the space.
        assert_eq!(lines, [2, 4]);
        let Content::Array(elements) = &members[1].1.content else { panic!("no array") };
        assert_eq!(elements.iter().map(|value| value.line).collect::<Vec<_>>(), [5, 6]);
    }

    #[test]
    fn mistakes_are_told_with_their_line() {
        for (text, message) in [
            ("", "premature EOF in JSON data"),
            ("[1", "premature EOF in JSON data"),
            ("\"a", "premature EOF in JSON data"),
            ("{\"a\":", "premature EOF in JSON data"),
            ("{\"a\"", "expected colon in object element on line 1 in JSON data"),
            ("fals", "premature EOF in JSON data"),
            ("-", "premature EOF in JSON data"),
            ("\n?", "unexpected '?' on line 2 in JSON data"),
            ("[,1]", "missing value before comma on line 1 in JSON data"),
            ("{1:2}", "missing quote from string on line 1 in JSON data"),
            ("{\"a\" 1}", "expected colon in object element on line 1 in JSON data"),
            ("falsy", "expected false on line 1 in JSON data"),
            ("01", "unexpected '1' on line 1 in JSON data"),
            ("1x", "unexpected 'x' on line 1 in JSON data"),
            ("\"\\q\"", "unknown escape code '\\q' on line 1 in JSON data"),
            ("\"\\u00g0\"", "expected hex digit on line 1 in JSON data"),
            ("\"\t\"", "unescaped whitespace on line 1 in JSON data"),
            ("\"\u{1}\"", "unknown byte (0x01) on line 1 in JSON data"),
        ] {
            assert_eq!(parse(text.as_bytes()), Err(message.to_owned()), "{text}");
        }
    }

    #[test]
    fn deep_nesting_is_an_error_and_no_stack_overflow() {
        assert!(parse(&b"[".repeat(1_000_000)).unwrap_err().contains("nested"));
        assert!(parse(&b"{\"a\":".repeat(1_000_000)).unwrap_err().contains("nested"));
    }
}
