//! What a fake daemon of a container engine hears: requests of HTTP/1.1 on a socket.

use std::io::BufRead;

pub struct Request {
    pub method: String,
    /// Without the version, which stands first (`/v1.41/info`), and without a query.
    pub path: String,
    pub body: String,
}

impl Request {
    /// `None` where nothing is asked. What comes after the request stays in the reader.
    pub fn read(reader: &mut impl BufRead) -> Option<Request> {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return None;
        }
        let mut length = 0;
        loop {
            let mut header = String::new();
            if reader.read_line(&mut header).unwrap_or(0) <= 2 {
                break;
            }
            if let Some(value) = header.to_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        let mut words = line.split(' ');
        let (method, target) = (words.next().unwrap(), words.next().unwrap());
        let path = target.split('?').next().unwrap();
        let path = path.strip_prefix("/v1.").and_then(|rest| rest.find('/').map(|at| &rest[at..])).unwrap_or(path);
        let body = String::from_utf8_lossy(&body).into_owned();
        Some(Request { method: method.to_owned(), path: path.to_owned(), body })
    }
}
