//! One file of known size and digest, from a mirror to its place.
//!
//! Owns: [`download`]: streaming with verification, resuming, retries, and the `.part` file next to the place, which
//! is locked so that two processes do not write it at once and which a later run resumes.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use sha2::{Digest as _, Sha256};

use crate::error::{Context, Error, Kind, Result};
use crate::interrupt;
use crate::package::Environment;
use crate::package::http::{Client, redact};
use crate::report::Reporter;
use crate::tree::Digest;

#[derive(Debug, Clone, Copy)]
pub struct Expected {
    pub size: u64,
    pub sha256: Digest,
}

/// How an attempt ended without a file.
enum Failure {
    /// Worth another attempt.
    Passing(Error),
    Final(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Final(error)
    }
}

/// Puts the file at `path` unless it is there already; whether it had to be downloaded. `progress` hears of bytes as
/// they come, and of all of them when the file was there.
pub fn download(
    environment: &Environment,
    url: &str,
    expected: &Expected,
    path: &Path,
    progress: &dyn Fn(u64),
) -> Result<bool> {
    let Environment { http: client, reporter, .. } = environment;
    if is_present(path, expected, reporter)? {
        progress(expected.size);
        return Ok(false);
    }
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    let part_path = path.with_extension("part");
    let mut part = lock_part(&part_path)?;
    // Another process may have finished it while we waited.
    if is_present(path, expected, reporter)? {
        _ = std::fs::remove_file(&part_path);
        progress(expected.size);
        return Ok(false);
    }
    let result = attempts(client, url, expected, &mut part, progress)
        .map_err(|error| match error.kind() {
            // Which disk is full.
            Kind::Space => error.add_context(part_path.display().to_string()),
            _ => error,
        })
        .with_context(|| format!("downloading {}", redact(url)))
        .and_then(|()| {
            std::fs::rename(&part_path, path).with_context(|| format!("moving {} into place", path.display()))
        });
    match result {
        Ok(()) => Ok(true),
        Err(error) => {
            if error.kind() == Kind::Authenticity {
                _ = std::fs::remove_file(&part_path);
            }
            Err(error)
        }
    }
}

/// Whether the file is there and good; a damaged one is said to be so and set aside.
pub fn is_present(path: &Path, expected: &Expected, reporter: &Reporter) -> Result<bool> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error).with_context(|| format!("opening {}", path.display())),
    };
    let mut hash = Sha256::new();
    let size = hash_rest(&mut file, &mut hash).with_context(|| format!("reading {}", path.display()))?;
    if size == expected.size && hash.finalize()[..] == expected.sha256.as_bytes()[..] {
        // Says when it was used last. Where that fails it only seems older than it is.
        _ = file.set_modified(std::time::SystemTime::now());
        return Ok(true);
    }
    let aside = path.with_extension("damaged");
    match std::fs::rename(path, &aside) {
        Ok(()) => reporter.warning(format!(
            "the cache is damaged: {} has {size} bytes that are not those of its digest; it is fetched again (what was \
             found is {})",
            path.display(),
            aside.display()
        )),
        // Another process was faster.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("setting {} aside", path.display())),
    }
    Ok(false)
}

/// Opens and locks the part file; tries again when another process renamed it away in between.
fn lock_part(path: &Path) -> Result<File> {
    use std::os::unix::fs::MetadataExt;
    loop {
        interrupt::check()?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .with_context(|| format!("creating {}", path.display()))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                std::thread::sleep(Duration::from_millis(50));
                continue;
            }
            Err(error) => return Err(error).with_context(|| format!("locking {}", path.display())),
        }
        let ours = file.metadata().with_context(|| format!("examining {}", path.display()))?;
        if std::fs::metadata(path).is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino())) {
            return Ok(file);
        }
    }
}

fn attempts(client: &Client, url: &str, expected: &Expected, part: &mut File, progress: &dyn Fn(u64)) -> Result<()> {
    let patience = client.patience();
    let mut pause = patience.pause;
    // Bytes reported so far: a file that starts over is not counted twice.
    let mut reported = 0;
    let mut report = |done: u64| {
        progress(done.saturating_sub(reported));
        reported = reported.max(done);
    };
    // What an earlier run left may be wrong; then a whole new download gets its own chance.
    let mut resumed = part.metadata().context("examining the partial file")?.len() > 0;
    let mut attempt = 1;
    loop {
        interrupt::check()?;
        match one_attempt(client, url, expected, part, &mut report) {
            Ok(()) => return Ok(()),
            Err(Failure::Final(error)) if resumed && error.kind() == Kind::Authenticity => {
                part.set_len(0).context("emptying the partial file")?;
                resumed = false;
            }
            Err(Failure::Final(error)) => return Err(error),
            Err(Failure::Passing(error)) if attempt >= patience.attempts => {
                interrupt::check()?;
                return Err(error).with_context(|| format!("giving up after {attempt} attempts"));
            }
            Err(Failure::Passing(_)) => {
                attempt += 1;
                sleep(pause)?;
                pause *= 2;
            }
        }
    }
}

/// In small portions, so that Ctrl-C is heard.
fn sleep(mut time: Duration) -> Result<()> {
    while !time.is_zero() {
        interrupt::check()?;
        let portion = time.min(Duration::from_millis(100));
        std::thread::sleep(portion);
        time -= portion;
    }
    Ok(())
}

fn one_attempt(
    client: &Client,
    url: &str,
    expected: &Expected,
    part: &mut File,
    report: &mut dyn FnMut(u64),
) -> Result<(), Failure> {
    let mut hash = Sha256::new();
    part.seek(SeekFrom::Start(0)).context("reading the partial file")?;
    let mut done = hash_rest(part, &mut hash).context("reading the partial file")?;
    if done > expected.size {
        part.set_len(0).context("emptying the partial file")?;
        (hash, done) = (Sha256::new(), 0);
    }
    if done < expected.size {
        let response = client.get(url, done).map_err(Failure::Passing)?;
        match response.status {
            206 if response.offset == done => {}
            200 => (hash, done) = (Sha256::new(), 0),
            // Our partial file is longer than what the server has, or it cannot do ranges.
            206 | 416 if done > 0 => {
                part.set_len(0).context("emptying the partial file")?;
                return Err(Failure::Passing(unexpected(client, url, response.status)));
            }
            408 | 429 | 500..=599 => return Err(Failure::Passing(unexpected(client, url, response.status))),
            status => return Err(Failure::Final(unexpected(client, url, status))),
        }
        part.set_len(done).context("cutting the partial file")?;
        part.seek(SeekFrom::Start(done)).context("writing the partial file")?;
        report(done);
        done = copy(client, url, expected, response.body, part, &mut hash, done, report)?;
    }
    let found = Digest::from_bytes(hash.finalize().into());
    if done == expected.size && found == expected.sha256 {
        return Ok(());
    }
    part.set_len(0).context("emptying the partial file")?;
    Err(Failure::Final(mismatch(format!("its SHA-256 digest is {found}, signed is {}", expected.sha256))))
}

#[allow(clippy::too_many_arguments)]
fn copy(
    client: &Client,
    url: &str,
    expected: &Expected,
    mut body: Box<dyn Read + Send>,
    part: &mut File,
    hash: &mut Sha256,
    mut done: u64,
    report: &mut dyn FnMut(u64),
) -> Result<u64, Failure> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        interrupt::check()?;
        let length = match body.read(&mut buffer) {
            Ok(0) if done < expected.size => {
                let problem = format!("the transfer ended after {done} of {} bytes", expected.size);
                return Err(Failure::Passing(client.unreachable(url, problem)));
            }
            Ok(0) => return Ok(done),
            Ok(length) => length,
            Err(error) => {
                let problem = format!("the transfer broke off after {done} of {} bytes ({error})", expected.size);
                return Err(Failure::Passing(client.unreachable(url, problem)));
            }
        };
        done += length as u64;
        if done > expected.size {
            part.set_len(0).context("emptying the partial file")?;
            return Err(Failure::Final(mismatch(format!("it is longer than the signed {} bytes", expected.size))));
        }
        hash.update(&buffer[..length]);
        part.write_all(&buffer[..length]).context("writing the partial file")?;
        report(done);
    }
}

fn hash_rest(file: &mut File, hash: &mut Sha256) -> std::io::Result<u64> {
    let mut buffer = vec![0; 128 << 10];
    let mut total = 0;
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(total),
            length => {
                hash.update(&buffer[..length]);
                total += length as u64;
            }
        }
    }
}

fn mismatch(problem: String) -> Error {
    Error::new(Kind::Authenticity, format!("the mirror delivered a wrong file: {problem}"))
        .hint("the mirror may be in the middle of an update, or something on the way changes files: try another one")
}

fn unexpected(client: &Client, url: &str, status: u16) -> Error {
    match status {
        // The server is fine: no proxy helps, the address does.
        404 | 410 => Error::new(Kind::Network, format!("{} is not there (status {status})", redact(url)))
            .hint("check `source`, `suite` and `components` of the repository; a mirror may also be in the middle of an update")
            .about(&["suite"]),
        _ => client.unreachable(url, format!("the server answered with status {status}")),
    }
}

/// A file whose size and digest nobody knows yet (the signed index itself), into memory; once a run.
pub fn download_small(client: &Client, url: &str, limit: u64) -> Result<Vec<u8>> {
    if let Some(bytes) = client.remembered(url) {
        return Ok(bytes.to_vec());
    }
    let patience = client.patience();
    let mut pause = patience.pause;
    for attempt in 1.. {
        interrupt::check()?;
        let failure = match small_attempt(client, url, limit) {
            Ok(bytes) => {
                client.remember(url, &bytes);
                return Ok(bytes);
            }
            Err(Failure::Final(error)) => return Err(error),
            Err(Failure::Passing(error)) => error,
        };
        if attempt >= patience.attempts {
            return Err(failure).with_context(|| format!("giving up after {attempt} attempts"));
        }
        sleep(pause)?;
        pause *= 2;
    }
    Err(client.unreachable(url, "no attempt was made"))
}

fn small_attempt(client: &Client, url: &str, limit: u64) -> Result<Vec<u8>, Failure> {
    let response = client.get(url, 0).map_err(Failure::Passing)?;
    match response.status {
        200 => {}
        408 | 429 | 500..=599 => return Err(Failure::Passing(unexpected(client, url, response.status))),
        status => return Err(Failure::Final(unexpected(client, url, status))),
    }
    let mut bytes = Vec::new();
    response
        .body
        .take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::Passing(client.unreachable(url, format!("the transfer broke off ({error})"))))?;
    if bytes.len() as u64 > limit {
        return Err(Failure::Final(mismatch(format!("it is longer than {limit} bytes"))));
    }
    Ok(bytes)
}
