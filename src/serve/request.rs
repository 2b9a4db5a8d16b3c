//! Reading requests: bounded in bytes and in time.

use std::io::Read;
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Of the request line and all header fields.
const LIMIT: usize = 16 << 10;

pub(super) struct Request {
    pub method: String,
    /// As it was sent.
    pub target: String,
    /// Decoded, without the query; `None` when it is no path.
    pub path: Option<Vec<u8>>,
    /// The connection ends after the answer.
    pub close: bool,
    pub range: Option<String>,
    pub if_range: Option<String>,
    pub if_none_match: Option<String>,
    /// What the client called us, for addresses in what we make.
    pub host: Option<String>,
}

pub(super) enum Failure {
    Malformed,
    TooLarge,
    /// A request with content.
    Body,
    /// Nobody is there any more, or sends too slowly.
    Gone,
}

pub(super) struct Reader<'a> {
    stream: &'a TcpStream,
    patience: Duration,
    buffer: Vec<u8>,
}

impl<'a> Reader<'a> {
    pub fn new(stream: &'a TcpStream, patience: Duration) -> Self {
        Reader { stream, patience, buffer: Vec::new() }
    }

    /// The next request; nothing when the client has no more.
    pub fn next(&mut self) -> Result<Option<Request>, Failure> {
        let started = Instant::now();
        loop {
            // Empty lines before a request are to be passed over (RFC 9112, 2.2).
            let skip = self.buffer.iter().take_while(|byte| b"\r\n".contains(byte)).count();
            self.buffer.drain(..skip);
            if let Some(end) = end_of_head(&self.buffer) {
                let head: Vec<u8> = self.buffer.drain(..end).collect();
                return parse(&head).map(Some);
            }
            if self.buffer.len() > LIMIT {
                return Err(Failure::TooLarge);
            }
            // Who sends a byte now and then does not hold a connection for ever.
            if started.elapsed() > self.patience {
                return Err(Failure::Gone);
            }
            let mut piece = [0; 4096];
            match self.stream.read(&mut piece) {
                Ok(0) if self.buffer.is_empty() => return Ok(None),
                Ok(0) => return Err(Failure::Gone),
                Ok(length) => self.buffer.extend_from_slice(&piece[..length]),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => return Err(Failure::Gone),
            }
        }
    }
}

/// Behind the empty line.
fn end_of_head(bytes: &[u8]) -> Option<usize> {
    let at = |end: &[u8]| memchr::memmem::find(bytes, end).map(|at| at + end.len());
    match (at(b"\r\n\r\n"), at(b"\n\n")) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

pub(super) fn parse(head: &[u8]) -> Result<Request, Failure> {
    let text = std::str::from_utf8(head).map_err(|_| Failure::Malformed)?;
    let mut lines = text.lines();
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (Some(method), Some(target), Some(version), None) = (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(Failure::Malformed);
    };
    let token = !method.is_empty() && method.bytes().all(|byte| byte.is_ascii_uppercase());
    if !token || !["HTTP/1.1", "HTTP/1.0"].contains(&version) {
        return Err(Failure::Malformed);
    }
    let mut request = Request {
        method: method.into(),
        target: target.into(),
        path: decode(target),
        close: version == "HTTP/1.0",
        range: None,
        if_range: None,
        if_none_match: None,
        host: None,
    };
    for line in lines.take_while(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':').ok_or(Failure::Malformed)?;
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "" => return Err(Failure::Malformed),
            name if name.contains(char::is_whitespace) => return Err(Failure::Malformed),
            "connection" if value.eq_ignore_ascii_case("close") => request.close = true,
            "connection" if value.eq_ignore_ascii_case("keep-alive") => request.close = false,
            "range" => request.range = Some(value.into()),
            "if-range" => request.if_range = Some(value.into()),
            "if-none-match" => request.if_none_match = Some(value.into()),
            "host" => request.host = Some(value.into()),
            "content-length" if value != "0" => return Err(Failure::Body),
            "transfer-encoding" => return Err(Failure::Body),
            _ => {}
        }
    }
    Ok(request)
}

/// The path of a target in its plain or its absolute form, with `%XX` undone.
fn decode(target: &str) -> Option<Vec<u8>> {
    let path = match target.strip_prefix("http://") {
        Some(rest) => rest.find('/').map_or("/", |at| &rest[at..]),
        None => target,
    };
    let path = path.split(['?', '#']).next().unwrap_or_default();
    if !path.starts_with('/') {
        return None;
    }
    let mut out = Vec::with_capacity(path.len());
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => {
                let digits = [bytes.next()?, bytes.next()?];
                let text = std::str::from_utf8(&digits).ok()?;
                u8::from_str_radix(text, 16).ok().filter(|_| digits.iter().all(u8::is_ascii_hexdigit))?
            }
            byte => byte,
        });
    }
    Some(out)
}
