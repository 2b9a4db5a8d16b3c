//! A small web server for what a build leaves behind: images, checksums, netboot files and seeds.
//!
//! Owns: [`Server`]. HTTP/1.1 (RFC 9110, RFC 9112) as far as boot firmware, iPXE, live-boot, cloud-init, Ironic and curl
//! need it: GET and HEAD, persistent connections, one range at a time, validators (the entity tag is the SHA-256), a page
//! for each folder. Files are opened below the folder by the kernel (`openat2`), so no path leads out of it. Everything
//! is bounded: connections, bytes of a request, time to send one. A seed in `openstack/latest/` is there in the form of
//! cloud-init's NoCloud data source, too, beside that folder.
//! Left out: TLS, several ranges in one answer (all is sent, as the standard allows), writing.

mod files;
mod netboot;
mod page;
mod request;
mod response;
mod seeds;

#[cfg(test)]
mod tests;

use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::error::{Context, Error, Kind, Result};
use crate::interrupt;
use crate::report::Reporter;
use files::Files;
use request::{Failure, Reader};
use response::Status;

/// More get `503 Service Unavailable`.
const CONNECTIONS: usize = 64;
/// Until a request is there, and until a piece of an answer is taken.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long Ctrl-C may go unnoticed.
const TICK: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };

/// A folder that is offered on an address.
pub struct Server {
    listener: TcpListener,
    files: Arc<Files>,
    open: Arc<AtomicUsize>,
}

impl Server {
    /// Listens, but answers nothing yet. Port 0 takes any that is free.
    pub fn bind(folder: &Path, address: SocketAddr) -> Result<Server> {
        let files = Arc::new(Files::open(folder)?);
        let listener = TcpListener::bind(address).map_err(|error| {
            Error::new(Kind::Network, format!("cannot listen on {address}: {error}"))
                .hint("choose another address with `--listen ADDRESS:PORT`")
        })?;
        listener.set_nonblocking(true).context("preparing to listen")?;
        Ok(Server { listener, files, open: Arc::default() })
    }

    pub fn address(&self) -> Result<SocketAddr> {
        self.listener.local_addr().context("asking for the address")
    }

    /// Answers until interrupted; that is an error of kind `Interrupted`.
    pub fn run(&self, reporter: &Reporter) -> Result<()> {
        loop {
            interrupt::check()?;
            let mut wait = [PollFd::new(&self.listener, PollFlags::IN)];
            // A signal ends the waiting early.
            if poll(&mut wait, Some(&TICK)).unwrap_or(0) == 0 {
                continue;
            }
            match self.listener.accept() {
                Ok((stream, peer)) => self.begin(stream, peer, reporter),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                // Too many open files, or a peer that is gone again: others may do better.
                Err(_) => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    }

    fn begin(&self, stream: TcpStream, peer: SocketAddr, reporter: &Reporter) {
        let ready = stream.set_nonblocking(false).is_ok()
            && stream.set_read_timeout(Some(PATIENCE)).is_ok()
            && stream.set_write_timeout(Some(PATIENCE)).is_ok();
        if !ready {
            return;
        }
        if self.open.fetch_add(1, Ordering::SeqCst) >= CONNECTIONS {
            self.open.fetch_sub(1, Ordering::SeqCst);
            return drop(response::plain(&mut &stream, Status::Busy, true));
        }
        let (files, reporter, guard) = (self.files.clone(), reporter.clone(), Guard(self.open.clone()));
        let spawned = std::thread::Builder::new().name("http".into()).spawn(move || {
            let _guard = guard;
            talk(&stream, &files, &|line| reporter.note(format!("{peer} {line}")));
        });
        drop(spawned);
    }
}

/// Reads what the client is still sending, so that the end of the connection does not overtake the answer (RFC 9112, 9.6).
fn linger(stream: &TcpStream) {
    const LIMIT: u64 = 1 << 20;
    let quiet = Some(Duration::from_secs(2));
    if stream.shutdown(Shutdown::Write).is_ok() && stream.set_read_timeout(quiet).is_ok() {
        _ = std::io::copy(&mut std::io::Read::take(stream, LIMIT), &mut std::io::sink());
    }
}

/// Counts a connection down when its thread ends, however it ends.
struct Guard(Arc<AtomicUsize>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// One connection: requests one after another.
fn talk(stream: &TcpStream, files: &Files, log: &dyn Fn(&str)) {
    let mut reader = Reader::new(stream, PATIENCE);
    loop {
        let request = match reader.next() {
            Ok(Some(request)) => request,
            Ok(None) => return,
            Err(failure) => {
                let status = match failure {
                    Failure::Malformed => Status::BadRequest,
                    Failure::TooLarge => Status::TooLarge,
                    Failure::Body => Status::BodyNotAllowed,
                    Failure::Gone => return,
                };
                _ = response::plain(&mut &*stream, status, true);
                return linger(stream);
            }
        };
        let answered = response::answer(stream, &request, files);
        let Ok(status) = answered else { return };
        log(&format!("{} {} {}", request.method, request.target.escape_debug(), status.code()));
        if request.close || interrupt::check().is_err() {
            return;
        }
    }
}
