//! Answers: a file or a part of it, a page, a seed in another form, or why not.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::net::TcpStream;

use super::files::{Files, Found};
use super::netboot;
use super::page;
use super::request::Request;
use super::seeds;
use crate::error::Result;
use crate::tree::{Digest, TreePath};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Ok,
    Partial,
    Moved,
    NotModified,
    BadRequest,
    NotFound,
    MethodNotAllowed,
    BodyNotAllowed,
    RangeNotSatisfiable,
    TooLarge,
    Failed,
    Busy,
}

impl Status {
    pub fn code(self) -> u16 {
        match self {
            Status::Ok => 200,
            Status::Partial => 206,
            Status::Moved => 301,
            Status::NotModified => 304,
            Status::BadRequest => 400,
            Status::NotFound => 404,
            Status::MethodNotAllowed => 405,
            Status::BodyNotAllowed => 413,
            Status::RangeNotSatisfiable => 416,
            Status::TooLarge => 431,
            Status::Failed => 500,
            Status::Busy => 503,
        }
    }

    fn reason(self) -> &'static str {
        match self {
            Status::Ok => "OK",
            Status::Partial => "Partial Content",
            Status::Moved => "Moved Permanently",
            Status::NotModified => "Not Modified",
            Status::BadRequest => "Bad Request",
            Status::NotFound => "Not Found",
            Status::MethodNotAllowed => "Method Not Allowed",
            Status::BodyNotAllowed => "Content Too Large",
            Status::RangeNotSatisfiable => "Range Not Satisfiable",
            Status::TooLarge => "Request Header Fields Too Large",
            Status::Failed => "Internal Server Error",
            Status::Busy => "Service Unavailable",
        }
    }
}

/// What is sent before the content.
struct Head {
    status: Status,
    fields: Vec<(&'static str, String)>,
}

impl Head {
    fn new(status: Status, length: u64) -> Head {
        // Nobody is to guess what a file is from its bytes.
        let fields = vec![("Content-Length", length.to_string()), ("X-Content-Type-Options", "nosniff".to_owned())];
        Head { status, fields }
    }

    fn with(mut self, name: &'static str, value: impl Into<String>) -> Head {
        self.fields.push((name, value.into()));
        self
    }

    fn bytes(&self, close: bool) -> Vec<u8> {
        let mut text = format!("HTTP/1.1 {} {}\r\nServer: imagebuilder\r\n", self.status.code(), self.status.reason());
        for (name, value) in &self.fields {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str(if close { "Connection: close\r\n\r\n" } else { "\r\n" });
        text.into_bytes()
    }
}

/// A status with a line of text.
pub(super) fn plain(to: &mut impl Write, status: Status, close: bool) -> io::Result<Status> {
    let text = format!("{} {}\n", status.code(), status.reason());
    let head = Head::new(status, text.len() as u64).with("Content-Type", "text/plain; charset=utf-8");
    let head = if status == Status::MethodNotAllowed { head.with("Allow", "GET, HEAD") } else { head };
    to.write_all(&[&head.bytes(close), text.as_bytes()].concat())?;
    Ok(status)
}

/// Answers one request; an error is one of the connection.
pub(super) fn answer(stream: &TcpStream, request: &Request, files: &Files) -> io::Result<Status> {
    let mut to = stream;
    let close = request.close;
    if !["GET", "HEAD"].contains(&request.method.as_str()) {
        return plain(&mut to, Status::MethodNotAllowed, close);
    }
    let Some(decoded) = &request.path else { return plain(&mut to, Status::BadRequest, close) };
    // `..` and zero bytes have no place in a path.
    let Some(path) = TreePath::new(decoded) else { return plain(&mut to, Status::BadRequest, close) };
    match look(files, &path, request.host.as_deref()) {
        Ok(Some(Thing::File(file, size, digest))) => send_file(to, request, &path, Sent { file, size, digest }),
        Ok(Some(Thing::Bytes(bytes))) => {
            let digest = Digest::of(&bytes);
            let head = Head::new(Status::Ok, bytes.len() as u64).with("ETag", tag(digest));
            send(to, request, head.with("Content-Type", kind_of(path.file_name())), &bytes)
        }
        Ok(Some(Thing::Folder(_))) if !decoded.ends_with(b"/") => {
            // The names on its page are relative to the slash.
            let parts = path.components().map(|part| page::encode(&String::from_utf8_lossy(part)));
            let location = parts.fold(String::new(), |path, part| format!("{path}/{part}")) + "/";
            send(to, request, Head::new(Status::Moved, 0).with("Location", location), &[])
        }
        Ok(Some(Thing::Folder(page))) => {
            let head = Head::new(Status::Ok, page.len() as u64).with("Content-Type", "text/html; charset=utf-8");
            let policy = "default-src 'none'; style-src 'unsafe-inline'";
            send(to, request, head.with("Content-Security-Policy", policy), &page)
        }
        Ok(None) => plain(&mut to, Status::NotFound, close),
        Err(_) => plain(&mut to, Status::Failed, close),
    }
}

enum Thing {
    File(File, u64, Digest),
    Folder(Vec<u8>),
    Bytes(Vec<u8>),
}

fn look(files: &Files, path: &TreePath, host: Option<&str>) -> Result<Option<Thing>> {
    Ok(match files.find(path)? {
        Some(Found::File { file, size, identity }) => {
            let digest = files.digest(&file, identity)?;
            Some(Thing::File(file, size, digest))
        }
        Some(Found::Folder(items)) => {
            let shown = if path.is_root() { "/".to_owned() } else { format!("{path}/") };
            Some(Thing::Folder(page::page(&shown, &items)))
        }
        None => match seeds::find(files, path)? {
            Some(bytes) => Some(Thing::Bytes(bytes)),
            None => netboot::find(files, path, host)?.map(Thing::Bytes),
        },
    })
}

fn send(mut to: &TcpStream, request: &Request, head: Head, bytes: &[u8]) -> io::Result<Status> {
    let mut out = head.bytes(request.close);
    if request.method == "GET" {
        out.extend_from_slice(bytes);
    }
    to.write_all(&out)?;
    Ok(head.status)
}

struct Sent {
    file: File,
    size: u64,
    digest: Digest,
}

/// The whole of a file or the range that is asked for.
fn send_file(mut to: &TcpStream, request: &Request, path: &TreePath, sent: Sent) -> io::Result<Status> {
    let Sent { mut file, size, digest } = sent;
    let tag = tag(digest);
    let common = |head: Head| head.with("ETag", tag.clone()).with("Accept-Ranges", "bytes");
    if request.if_none_match.as_deref().is_some_and(|known| names(known, &tag)) {
        let head = Head { status: Status::NotModified, fields: Vec::new() };
        return send(to, request, common(head), &[]);
    }
    // Only GET has ranges (RFC 9110, 14.2), and only as long as the file is what the client has a part of.
    let valid = request.if_range.as_deref().is_none_or(|known| known == tag);
    let range = request.range.as_deref().filter(|_| request.method == "GET" && valid);
    let (status, start, length) = match range.map_or(Wanted::All, |range| wanted(range, size)) {
        Wanted::All => (Status::Ok, 0, size),
        Wanted::Part(start, end) => (Status::Partial, start, end - start + 1),
        Wanted::Nothing => {
            let head = Head::new(Status::RangeNotSatisfiable, 0).with("Content-Range", format!("bytes */{size}"));
            return send(to, request, common(head), &[]);
        }
    };
    let mut head = common(Head::new(status, length)).with("Content-Type", kind_of(path.file_name()));
    if status == Status::Partial {
        head = head.with("Content-Range", format!("bytes {start}-{}/{size}", start + length - 1));
    }
    to.write_all(&head.bytes(request.close))?;
    if request.method == "GET" {
        file.seek(SeekFrom::Start(start))?;
        let copied = io::copy(&mut file.take(length), &mut to)?;
        if copied != length {
            // It has become shorter: the client has to see that something is missing.
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(status)
}

fn tag(digest: Digest) -> String {
    format!("\"{digest}\"")
}

/// Whether a list of entity tags has one; `W/` counts for nothing here (RFC 9110, 8.8.3.2).
fn names(list: &str, tag: &str) -> bool {
    list.split(',').map(str::trim).any(|known| known == "*" || known.strip_prefix("W/").unwrap_or(known) == tag)
}

/// What a `Range` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    /// It is no range that we know, or more than one.
    All,
    /// First and last byte.
    Part(u64, u64),
    /// Only what the file does not have.
    Nothing,
}

fn wanted(range: &str, size: u64) -> Wanted {
    let Some((first, last)) = range.strip_prefix("bytes=").and_then(|range| range.trim().split_once('-')) else {
        return Wanted::All;
    };
    let number = |text: &str| -> Option<u64> {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        // More digits than fit are past the end of everything.
        digits.then(|| text.parse().unwrap_or(u64::MAX))
    };
    let (start, end) = match (number(first), number(last)) {
        // The last so many.
        (None, Some(length)) if first.is_empty() => match length.min(size) {
            0 => return Wanted::Nothing,
            length => (size - length, size - 1),
        },
        (Some(first), None) if last.is_empty() => (first, u64::MAX),
        (Some(first), Some(last)) if first <= last => (first, last),
        _ => return Wanted::All,
    };
    if start < size { Wanted::Part(start, end.min(size - 1)) } else { Wanted::Nothing }
}

fn kind_of(name: &[u8]) -> &'static str {
    let extension = name.rsplit(|byte| *byte == b'.').next().unwrap_or_default();
    match extension {
        b"json" => "application/json",
        b"yaml" | b"sha256" | b"md5sum" | b"ipxe" | b"txt" => "text/plain; charset=utf-8",
        b"iso" => "application/vnd.efi.iso",
        b"user-data" | b"meta-data" | b"vendor-data" | b"network-config" | b"user_data" => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}
