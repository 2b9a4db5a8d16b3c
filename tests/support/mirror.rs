//! A mirror for tests: a small HTTP server that serves a generated, signed repository and misbehaves on request.

// Every test program compiles its own copy and uses what it needs.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use imagebuilder::api::params::distribution::{Empty, Repository};
use imagebuilder::tree::Digest;
use pgp::composed::{
    ArmorOptions, CleartextSignedMessage, KeyType, SecretKeyParamsBuilder, SignedPublicKey, SignedSecretKey,
};
use pgp::types::Password;

#[derive(Debug, Clone)]
pub enum Fault {
    Status(u16),
    /// Announces all of it, sends this many bytes and hangs up.
    Truncate(usize),
    /// Waits before the body.
    Stall(Duration),
    /// Sends something else.
    Instead(Vec<u8>),
    /// Sends the whole file whatever range is asked for.
    IgnoreRange,
    /// To another path.
    Redirect(String),
}

#[derive(Default)]
pub struct State {
    pub files: BTreeMap<String, Vec<u8>>,
    /// Taken from the front, one a request.
    pub faults: BTreeMap<String, Vec<Fault>>,
    /// `path`, or `path@start` for a range.
    pub log: Vec<String>,
    /// Whole heads of the requests.
    pub heads: Vec<String>,
}

#[derive(Clone)]
pub struct Mirror {
    pub state: Arc<Mutex<State>>,
    pub port: u16,
}

impl Mirror {
    pub fn start(files: BTreeMap<String, Vec<u8>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let mirror = Mirror { state: Arc::new(Mutex::new(State { files, ..State::default() })), port };
        let state = mirror.state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = state.clone();
                // A client that hangs up is not the mirror's problem.
                std::thread::spawn(move || _ = serve(&state, stream));
            }
        });
        mirror
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/archive", self.port)
    }

    pub fn fault(&self, path: &str, faults: &[Fault]) {
        self.state.lock().unwrap().faults.insert(path.to_owned(), faults.to_vec());
    }

    pub fn replace(&self, files: BTreeMap<String, Vec<u8>>) {
        self.state.lock().unwrap().files = files;
    }

    /// Requests whose path ends like this, since the last call.
    pub fn taken(&self, end: &str) -> Vec<String> {
        let mut state = self.state.lock().unwrap();
        let of = |line: &String| line.split('@').next().unwrap().ends_with(end);
        let taken = state.log.iter().filter(|line| of(line)).cloned().collect();
        state.log.retain(|line| !of(line));
        taken
    }
}

fn serve(state: &Mutex<State>, mut stream: TcpStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut head = String::new();
    while reader.read_line(&mut head)? > 2 {}
    let target = head.split(' ').nth(1).unwrap_or_default();
    let path = match target.strip_prefix("http://") {
        Some(rest) => &rest[rest.find('/').unwrap_or(rest.len())..],
        None => target,
    };
    let path = path.strip_prefix("/archive/").unwrap_or(path).to_owned();
    let range = head.to_ascii_lowercase().lines().find_map(|line| Some(line.strip_prefix("range: bytes=")?.to_owned()));
    let start: usize = range.and_then(|range| range.trim_end_matches('-').parse().ok()).unwrap_or(0);
    let (file, fault) = {
        let mut state = state.lock().unwrap();
        state.log.push(if start > 0 { format!("{path}@{start}") } else { path.clone() });
        state.heads.push(head);
        let faults = state.faults.entry(path.clone()).or_default();
        let fault = if faults.is_empty() { None } else { Some(faults.remove(0)) };
        (state.files.get(&path).cloned(), fault)
    };
    let mut start = start;
    let mut send = usize::MAX;
    let mut file = file;
    match fault {
        Some(Fault::Status(status)) => {
            return write!(stream, "HTTP/1.1 {status} X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        }
        Some(Fault::Redirect(to)) => {
            return write!(
                stream,
                "HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            );
        }
        Some(Fault::Truncate(bytes)) => send = bytes,
        Some(Fault::Stall(time)) => std::thread::sleep(time),
        Some(Fault::Instead(bytes)) => file = Some(bytes),
        Some(Fault::IgnoreRange) => start = 0,
        None => {}
    }
    let Some(file) = file else {
        return write!(stream, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    };
    let body = &file[start.min(file.len())..];
    if start > 0 {
        write!(
            stream,
            "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {start}-{}/{}\r\n",
            file.len() - 1,
            file.len()
        )?;
    } else {
        write!(stream, "HTTP/1.1 200 OK\r\n")?;
    }
    write!(stream, "Content-Length: {}\r\nConnection: close\r\n\r\n", body.len())?;
    stream.write_all(&body[..send.min(body.len())])
}

pub struct Archive {
    pub secret: SignedSecretKey,
    pub public: String,
}

impl Archive {
    pub fn new() -> Self {
        let mut parameters = SecretKeyParamsBuilder::default();
        parameters.key_type(KeyType::Ed25519Legacy).can_certify(true).can_sign(true).primary_user_id("Test".into());
        let secret = parameters.build().unwrap().generate(rand::thread_rng()).unwrap();
        let secret = secret.sign(rand::thread_rng(), &Password::empty()).unwrap();
        let public = SignedPublicKey::from(secret.clone()).to_armored_string(ArmorOptions::default()).unwrap();
        Archive { secret, public }
    }

    pub fn sign(&self, text: &str) -> String {
        CleartextSignedMessage::sign(rand::thread_rng(), text, &*self.secret, &Password::empty())
            .unwrap()
            .to_armored_string(ArmorOptions::default())
            .unwrap()
    }

    pub fn repository(&self, mirror: &Mirror) -> Repository {
        Repository {
            source: mirror.url(),
            suite: "stable".into(),
            components: BTreeMap::from([("main".to_owned(), Empty {})]),
            keyring: self.public.clone(),
            ..Repository::default()
        }
    }
}

/// What a suite looks like; the default is a good one.
pub struct Suite {
    pub name: &'static str,
    pub date: i64,
    pub valid_until: Option<i64>,
    pub by_hash: bool,
    pub extra: &'static str,
}

impl Default for Suite {
    fn default() -> Self {
        Suite { name: "stable", date: now() - 3600, valid_until: None, by_hash: false, extra: "" }
    }
}

pub fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

pub fn date(seconds: i64) -> String {
    let time = jiff::Timestamp::from_second(seconds).unwrap();
    time.strftime("%a, %d %b %Y %H:%M:%S UTC").to_string()
}

/// A "package": the head of an ar archive with a time stamp, then filling.
pub fn deb(name: &str, stamp: i64) -> Vec<u8> {
    let mut bytes =
        format!("!<arch>\n{:<16}{stamp:<12}{:<6}{:<6}{:<8}{:<10}`\n2.0\n", "debian-binary", 0, 0, 100644, 4)
            .into_bytes();
    while bytes.len() < 300_000 {
        bytes.extend_from_slice(format!("{name} {}\n", bytes.len()).as_bytes());
    }
    bytes
}

pub const BASE: &str = "pool/base_1_amd64.deb";
pub const TOOL: &str = "pool/tool_2_all.deb";

impl Suite {
    pub fn files(&self, archive: &Archive) -> BTreeMap<String, Vec<u8>> {
        let offers = [
            (BASE, "Package: base\nVersion: 1\nArchitecture: amd64\nEssential: yes\n", 1_600_000_000),
            (TOOL, "Package: tool\nVersion: 2\nArchitecture: all\nDepends: base\n", 1_700_000_000),
            // Nobody can install it.
            ("pool/broken_1_all.deb", "Package: broken\nVersion: 1\nArchitecture: all\nDepends: absent (>= 2)\n", 0),
        ];
        let offers = offers.map(|(path, stanza, stamp)| (path.to_owned(), stanza.to_owned(), deb(path, stamp)));
        self.files_of(archive, &offers)
    }

    /// The suite with these packages: path, fields, bytes.
    pub fn files_of(&self, archive: &Archive, offers: &[(String, String, Vec<u8>)]) -> BTreeMap<String, Vec<u8>> {
        let mut files = BTreeMap::new();
        let mut packages = String::new();
        for (path, stanza, bytes) in offers {
            packages += &format!("{stanza}Filename: {path}\nSize: {}\nSHA256: {}\n\n", bytes.len(), Digest::of(bytes));
            files.insert(path.clone(), bytes.clone());
        }
        let mut packed = Vec::new();
        std::io::Read::read_to_end(&mut liblzma::read::XzEncoder::new(packages.as_bytes(), 1), &mut packed).unwrap();
        let mut release =
            format!("Suite: {}\nCodename: code\nComponents: main\nDate: {}\n", self.name, date(self.date));
        if let Some(until) = self.valid_until {
            release += &format!("Valid-Until: {}\n", date(until));
        }
        if self.by_hash {
            release += "Acquire-By-Hash: yes\n";
        }
        release += &format!("{}SHA256:\n", self.extra);
        for (path, bytes) in [("Packages", packages.into_bytes()), ("Packages.xz", packed)] {
            let digest = Digest::of(&bytes);
            release += &format!(" {digest} {} main/binary-amd64/{path}\n", bytes.len());
            if self.by_hash {
                files.insert(format!("dists/stable/main/binary-amd64/by-hash/SHA256/{digest}"), bytes.clone());
            }
            if path.ends_with("xz") {
                files.insert(format!("dists/stable/main/binary-amd64/{path}"), bytes);
            }
        }
        files.insert(IN_RELEASE.into(), archive.sign(&release).into_bytes());
        files
    }
}

pub const IN_RELEASE: &str = "dists/stable/InRelease";
pub const INDEX: &str = "dists/stable/main/binary-amd64/Packages.xz";

/// A package that is one: control member, empty data member, nothing compressed.
pub fn real_deb(control: &str, stamp: i64) -> Vec<u8> {
    deb_with(control, stamp, &[])
}

/// With files: path, mode, bytes; a link has mode 0 and its target as bytes.
pub fn deb_with(control: &str, stamp: i64, files: &[(String, u32, Vec<u8>)]) -> Vec<u8> {
    let text = format!("{control}Maintainer: nobody\nDescription: none\n");
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(text.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, "./control", text.as_bytes()).unwrap();
    let control = tar.into_inner().unwrap();
    let mut tar = tar::Builder::new(Vec::new());
    let mut folders = std::collections::BTreeSet::from(["./".to_owned()]);
    for (path, _, _) in files {
        for (at, _) in path.match_indices('/') {
            folders.insert(format!("./{}", &path[..=at]));
        }
    }
    for folder in folders {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_mode(0o755);
        header.set_size(0);
        header.set_mtime(stamp as u64);
        tar.append_data(&mut header, folder, &[][..]).unwrap();
    }
    for (path, mode, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mtime(stamp as u64);
        if *mode == 0 {
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_mode(0o777);
            header.set_size(0);
            tar.append_link(&mut header, format!("./{path}"), std::str::from_utf8(bytes).unwrap()).unwrap();
        } else {
            header.set_mode(*mode);
            header.set_size(bytes.len() as u64);
            tar.append_data(&mut header, format!("./{path}"), &bytes[..]).unwrap();
        }
    }
    let data = tar.into_inner().unwrap();
    let mut bytes = b"!<arch>\n".to_vec();
    for (name, content) in [("debian-binary", &b"2.0\n"[..]), ("control.tar", &control), ("data.tar", &data)] {
        let head = format!("{name:<16}{stamp:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 100644, content.len());
        bytes.extend_from_slice(head.as_bytes());
        bytes.extend_from_slice(content);
        if content.len() % 2 == 1 {
            bytes.push(b'\n');
        }
    }
    bytes
}
