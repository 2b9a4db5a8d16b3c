//! TCP connections of the HTTP client.
//!
//! Owns: [`Tcp`], a connector for ureq. Two things are done in another way than ureq's own does them. What arrives is
//! acknowledged at once: servers and caching proxies that send a response in pieces wait for that before the last one
//! (RFC 896), and Linux puts it off for 40 ms, for every file of a package set. And who waits for a mirror that has gone
//! silent hears Ctrl-C.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, Transport, time,
};
use ureq::{Error, Timeout};

use crate::interrupt;

/// How long Ctrl-C is not heard.
const PORTION: Duration = Duration::from_millis(200);

#[derive(Debug, Default)]
pub(super) struct Tcp;

impl<In: Transport> Connector<In> for Tcp {
    type Out = Either<In, Connection>;

    fn connect(&self, details: &ConnectionDetails, chained: Option<In>) -> Result<Option<Self::Out>, Error> {
        if let Some(chained) = chained {
            return Ok(Some(Either::A(chained)));
        }
        let stream = connect(details)?;
        let config = details.config;
        let buffers = LazyBuffers::new(config.input_buffer_size(), config.output_buffer_size());
        Ok(Some(Either::B(Connection { stream, buffers, waits: None })))
    }
}

/// To the first address that answers; they share the time there is.
fn connect(details: &ConnectionDetails) -> Result<TcpStream, Error> {
    let end = details.timeout.not_zero().map(|timeout| Instant::now() + *timeout);
    let mut last = Error::ConnectionFailed;
    for (number, address) in details.addrs.iter().enumerate() {
        let share = end.map(|end| {
            let left = end.saturating_duration_since(Instant::now());
            Instant::now() + left / (details.addrs.len() - number) as u32
        });
        match connect_to(address, share) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                stream.set_write_timeout(WRITING)?;
                return Ok(stream);
            }
            Err(_) if interrupt::check().is_err() => return Err(interrupted()),
            Err(error) if is_late(&error) => last = Error::Timeout(Timeout::Connect),
            Err(error) => last = Error::Io(error),
        }
    }
    Err(last)
}

/// A host that is not there says nothing: connect(2) would wait for minutes, and could not be interrupted.
fn connect_to(address: &SocketAddr, end: Option<Instant>) -> std::io::Result<TcpStream> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    match rustix::net::connect(&socket, address) {
        Ok(()) => {}
        Err(Errno::INPROGRESS) => wait_for(&socket, end)?,
        Err(error) => return Err(error.into()),
    }
    sockopt::socket_error(&socket)??;
    let stream = TcpStream::from(socket);
    stream.set_nonblocking(false)?;
    Ok(stream)
}

/// Until a connection stands or has failed.
fn wait_for(socket: &OwnedFd, end: Option<Instant>) -> std::io::Result<()> {
    loop {
        interrupt::check().map_err(std::io::Error::other)?;
        let left = end.map_or(PORTION, |end| end.saturating_duration_since(Instant::now()));
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        let portion = Timespec::try_from(left.min(PORTION)).map_err(std::io::Error::other)?;
        match poll(&mut [PollFd::new(socket, PollFlags::OUT)], Some(&portion)) {
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Requests are small: one that cannot be sent for so long never will.
const WRITING: Option<Duration> = Some(Duration::from_secs(60));

#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    buffers: LazyBuffers,
    /// The timeout that the kernel knows.
    waits: Option<Duration>,
}

impl Connection {
    /// One read of at most this time.
    fn read(&mut self, time: Duration) -> std::io::Result<usize> {
        if self.waits != Some(time) {
            self.stream.set_read_timeout(Some(time))?;
            self.waits = Some(time);
        }
        // The kernel forgets it again (tcp(7)). Where it fails it is only slower.
        _ = sockopt::set_tcp_quickack(&self.stream, true);
        let read = self.stream.read(self.buffers.input_append_buf())?;
        self.buffers.input_appended(read);
        Ok(read)
    }
}

impl Transport for Connection {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, _: NextTimeout) -> Result<(), Error> {
        let sent = self.stream.write_all(&self.buffers.output()[..amount]);
        sent.map_err(|error| if is_late(&error) { Error::Timeout(Timeout::SendRequest) } else { Error::Io(error) })
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        let timeout = timeout.for_read();
        let end = timeout.not_zero().map(|timeout: time::Duration| Instant::now() + *timeout);
        loop {
            if interrupt::check().is_err() {
                return Err(interrupted());
            }
            let left = end.map_or(PORTION, |end| end.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return Err(Error::Timeout(timeout.reason));
            }
            match self.read(left.min(PORTION)) {
                Ok(read) => return Ok(read > 0),
                Err(error) if is_late(&error) || error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Whether it can be used for another request: there is nothing to read, not even its end.
    fn is_open(&mut self) -> bool {
        let quiet = |stream: &mut TcpStream| {
            stream.set_nonblocking(true)?;
            let read = stream.read(&mut [0]);
            stream.set_nonblocking(false)?;
            read
        };
        quiet(&mut self.stream).is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    }
}

/// What a socket says whose time is over (socket(7), SO_RCVTIMEO).
fn is_late(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

fn interrupted() -> Error {
    Error::Io(std::io::Error::other("interrupted"))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use ureq::Agent;
    use ureq::unversioned::resolver::DefaultResolver;
    use ureq::unversioned::transport::TcpConnector;

    use super::*;

    fn agent(timeout: Duration, connector: impl Connector) -> Agent {
        let config = Agent::config_builder().timeout_per_read(Some(timeout)).timeout_connect(Some(timeout)).build();
        Agent::with_parts(config, connector, DefaultResolver::default())
    }

    /// A server that sends header and body apart and leaves it to the kernel when, as many do. What 20 files take.
    fn files(connector: impl Connector) -> Duration {
        const FILES: usize = 20;
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let mut stream = listener.accept().unwrap().0;
            for _ in 0..FILES {
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    stream.read_exact(&mut byte).unwrap();
                    request.push(byte[0]);
                }
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n").unwrap();
                stream.write_all(b"first").unwrap();
            }
        });
        let agent = agent(Duration::from_secs(30), connector);
        let began = Instant::now();
        for _ in 0..FILES {
            let mut response = agent.get(format!("http://{address}/")).call().unwrap();
            assert_eq!(response.body_mut().read_to_string().unwrap(), "first");
        }
        server.join().unwrap();
        began.elapsed()
    }

    #[test]
    fn nobody_waits_for_an_acknowledgement() {
        let (ours, theirs) = (files(Tcp), files(TcpConnector::default()));
        assert!(ours * 2 < theirs, "{ours:?}, and {theirs:?} where acknowledgements are put off");
    }

    #[test]
    fn a_silent_server_and_one_that_is_not_there() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let silent = agent(Duration::from_millis(300), Tcp).get(format!("http://{address}/")).call().unwrap_err();
        assert!(matches!(silent, Error::Timeout(_)), "{silent}");
        drop(listener);
        // An address that is kept for examples (RFC 5737): nobody answers, or a router says so.
        let nobody = agent(Duration::from_millis(300), Tcp).get("http://192.0.2.1/").call().unwrap_err();
        assert!(matches!(nobody, Error::Timeout(_) | Error::Io(_)), "{nobody}");
        let gone = agent(Duration::from_millis(300), Tcp).get(format!("http://{address}/")).call().unwrap_err();
        assert!(matches!(gone, Error::Io(_)), "{gone}");
    }
}
