//! One container: created, started, listened to, stopped when the user asks, and removed.
//!
//! Owns: [`run`] and [`Request`]. No privilege, device or capability is ever asked for. Whatever happens after its
//! creation, the container is removed before the call ends, unless it is to be kept; a daemon that goes away meanwhile is
//! waited for, so that nothing is left in it.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bollard::container::LogOutput;
use bollard::errors::Error as Bollard;
use bollard::models::{ContainerCreateBody, ContainerState, HostConfig, HostConfigLogConfig, Mount, MountType};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, InspectContainerOptions, LogsOptionsBuilder, RemoveContainerOptionsBuilder,
    StartContainerOptions, StopContainerOptionsBuilder, WaitContainerOptions,
};
use futures_util::future::{Either, select};
use futures_util::{FutureExt, StreamExt};

use super::{Daemon, TICK, failure};
use crate::error::{Context, Error, Kind, Result};
use crate::interrupt;

/// On every container of ours.
pub const LABEL: &str = "org.airshipit.imagebuilder";
/// Seconds that a builder has to clean up after Ctrl-C; more than it waits for a mirror that does not answer.
const GRACE: i32 = 40;
/// How long a daemon that went away is waited for, to remove what is left in it.
const RETURN: Duration = Duration::from_secs(15);
/// Of a container that has ended: Podman's streams of logs may stay open after the last of its output.
const QUIET: Duration = Duration::from_secs(3);
/// Of the daemon's log drivers, those whose logs can be followed.
const READABLE: [&str; 5] = ["json-file", "local", "journald", "k8s-file", ""];

/// What to run, and what of this machine it sees.
#[derive(Debug, Clone, Default)]
pub struct Request {
    pub image: String,
    /// The program and its arguments.
    pub command: Vec<String>,
    pub environment: Vec<(String, String)>,
    pub folders: Vec<Shared>,
    /// Where it starts.
    pub work_folder: Option<PathBuf>,
    /// A folder in memory for roots that scripts run in, with its size in bytes.
    pub memory: Option<(PathBuf, u64)>,
    /// As `docker run --network` has it.
    pub network: Option<String>,
    pub host_name: Option<String>,
    /// Leave the container there, whatever happens.
    pub keep: bool,
}

/// A folder of this machine in the container.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shared {
    pub target: PathBuf,
    pub source: PathBuf,
    pub read_only: bool,
}

/// Output as it comes, cut anywhere.
pub enum Piece<'a> {
    Out(&'a [u8]),
    Error(&'a [u8]),
}

/// How it ended by itself or was ended by others than us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    pub code: i64,
    pub out_of_memory: bool,
    /// What the daemon has to say about it.
    pub error: String,
    /// The container that was kept.
    pub kept: Option<String>,
}

/// Runs a container to its end.
pub fn run(daemon: &Daemon, request: &Request, listen: &mut dyn FnMut(Piece<'_>)) -> Result<Ended> {
    let body = body(daemon, request)?;
    let options = CreateContainerOptionsBuilder::default().build();
    let created = daemon.ask(daemon.client.create_container(Some(options), body));
    let id = created.with_context(|| format!("creating a container of `{}`", request.image))?.id;
    let ended = daemon.runtime.block_on(watch(daemon, &id, listen));
    if request.keep {
        let kept = id.get(..12).unwrap_or(&id).to_owned();
        return match ended {
            Ok(ended) => Ok(Ended { kept: Some(kept), ..ended }),
            Err(error) => {
                Err(error.hint(format!("its container was kept: `docker logs {kept}`, `docker rm -f {kept}`")))
            }
        };
    }
    let removed = daemon.runtime.block_on(remove(daemon, &id));
    let ended = ended.map_err(|error| match &removed {
        Ok(()) => error,
        Err(_) => error.hint(format!("its container may be left: `docker rm -f {id}`")),
    })?;
    removed.map(|()| ended)
}

fn body(daemon: &Daemon, request: &Request) -> Result<ContainerCreateBody> {
    let text = |path: &PathBuf| match path.to_str() {
        Some(text) => Ok(text.to_owned()),
        None => Err(Error::build(format!("{}: a container engine takes names in UTF-8 only", path.display()))),
    };
    let mount = |folder: &Shared| {
        Ok(Mount {
            target: Some(text(&folder.target)?),
            source: Some(text(&folder.source)?),
            typ: Some(MountType::BIND),
            read_only: Some(folder.read_only),
            ..Mount::default()
        })
    };
    let memory = match &request.memory {
        // Programs of the image run there, some of them with the set-user-id bit, and it has devices.
        Some((path, size)) => Some(HashMap::from([(text(path)?, format!("rw,exec,suid,dev,mode=755,size={size}"))])),
        None => None,
    };
    let readable = READABLE.contains(&daemon.facts.logging.as_str());
    let logging = HostConfigLogConfig { typ: Some("json-file".to_owned()), config: None };
    let host = HostConfig {
        mounts: Some(request.folders.iter().map(mount).collect::<Result<_>>()?),
        tmpfs: memory,
        network_mode: Some(network(daemon, request)),
        // Files that it makes are root's, not those of an id that exists nowhere else.
        userns_mode: daemon.facts.remapped.then(|| "host".to_owned()),
        log_config: (!readable).then_some(logging),
        ..HostConfig::default()
    };
    let mut command = request.command.iter().cloned();
    Ok(ContainerCreateBody {
        image: Some(request.image.clone()),
        entrypoint: Some(command.next().into_iter().collect()),
        cmd: Some(command.collect()),
        env: Some(request.environment.iter().map(|(name, value)| format!("{name}={value}")).collect()),
        working_dir: request.work_folder.as_ref().map(text).transpose()?,
        // What scripts of packages need to set owners; the engine's default capabilities, no more.
        user: Some("0:0".to_owned()),
        hostname: request.host_name.clone(),
        labels: Some(HashMap::from([(LABEL.to_owned(), "build".to_owned())])),
        attach_stdin: Some(false),
        tty: Some(false),
        host_config: Some(host),
        ..ContainerCreateBody::default()
    })
}

/// As asked; else the engine's own, and where it has none, this machine's.
fn network(daemon: &Daemon, request: &Request) -> String {
    let default = || if daemon.facts.bridge { "bridge".to_owned() } else { "host".to_owned() };
    request.network.clone().unwrap_or_else(default)
}

async fn watch(daemon: &Daemon, id: &str, listen: &mut dyn FnMut(Piece<'_>)) -> Result<Ended> {
    let started = super::patient(daemon.client.start_container(id, None::<StartContainerOptions>)).await?;
    started.map_err(|error| failure::explain(error, &daemon.endpoint)).context("starting the container")?;
    let interrupted = follow(daemon, id, listen).await;
    if let Err(error) = &interrupted {
        if error.kind() != Kind::Interrupted {
            return Err(gone(error));
        }
    }
    let state = ended(daemon, id).await?;
    interrupted?;
    Ok(Ended {
        code: state.exit_code.unwrap_or(-1),
        out_of_memory: state.oom_killed == Some(true),
        error: state.error.unwrap_or_default(),
        kept: None,
    })
}

fn gone(error: &Error) -> Error {
    Error::build(format!("the container engine went away while the builder ran: {error}"))
        .hint("see in its log why it stopped, and build again: what was finished is in the cache")
}

/// Hands on output until there is none left. When the user asks to stop, the container is stopped and heard to its end.
async fn follow(daemon: &Daemon, id: &str, listen: &mut dyn FnMut(Piece<'_>)) -> Result<()> {
    let options = LogsOptionsBuilder::default().follow(true).stdout(true).stderr(true).build();
    let mut output = std::pin::pin!(daemon.client.logs(id, Some(options)));
    let mut exit = daemon.client.wait_container(id, None::<WaitContainerOptions>);
    let mut exit = Some(exit.next());
    let (mut has_ended, mut heard) = (false, Instant::now());
    let mut asked: Option<Error> = None;
    loop {
        let next = output.next();
        let tick = std::pin::pin!(tokio::time::sleep(TICK));
        match select(next, tick).await {
            Either::Left((None, _)) => return asked.map_or(Ok(()), Err),
            Either::Left((Some(Ok(piece)), _)) => {
                heard = Instant::now();
                match piece {
                    LogOutput::StdErr { message } => listen(Piece::Error(&message)),
                    other => listen(Piece::Out(other.as_ref())),
                }
            }
            Either::Left((Some(Err(error)), _)) => {
                return Err(asked.unwrap_or_else(|| failure::explain(error, &daemon.endpoint)));
            }
            Either::Right(_) => {
                if let Some(told) = exit.as_mut().and_then(|exit| exit.now_or_never()) {
                    exit = None;
                    has_ended = matches!(told, Some(Ok(_) | Err(Bollard::DockerContainerWaitError { .. })));
                }
                if has_ended && heard.elapsed() > QUIET {
                    return asked.map_or(Ok(()), Err);
                }
                if asked.is_none() {
                    if let Err(error) = interrupt::check() {
                        asked = Some(error);
                        stop(daemon, id).await;
                    }
                }
            }
        }
    }
}

/// Asks the builder to end, and makes it. Removal comes after, so failures do not matter.
pub(super) async fn stop(daemon: &Daemon, id: &str) {
    let options = StopContainerOptionsBuilder::default().t(GRACE).build();
    if let Err(error) = daemon.client.stop_container(id, Some(options)).await {
        tracing::debug!("stopping container {id}: {error}");
    }
}

/// The output has ended, so the container is about to.
pub(super) async fn ended(daemon: &Daemon, id: &str) -> Result<ContainerState> {
    let began = Instant::now();
    loop {
        let state = match daemon.client.inspect_container(id, None::<InspectContainerOptions>).await {
            Ok(inspected) => inspected.state.unwrap_or_default(),
            // Podman has states that Docker does not know.
            Err(Bollard::JsonDataError { .. } | Bollard::JsonSerdeError { .. }) => exit_code(daemon, id).await?,
            Err(error) => return Err(gone(&failure::explain(error, &daemon.endpoint))),
        };
        if state.running != Some(true) {
            return Ok(state);
        }
        if began.elapsed() > RETURN {
            return Err(Error::build("its output ended, but the container runs on")
                .hint("the container engine may have been restarted; build again: what was finished is in the cache"));
        }
        tokio::time::sleep(TICK).await;
    }
}

/// Of a container that has ended; all that can be asked for without its state.
async fn exit_code(daemon: &Daemon, id: &str) -> Result<ContainerState> {
    let told = super::patient(daemon.client.wait_container(id, None::<WaitContainerOptions>).next()).await?;
    let code = match told {
        Some(Ok(response)) => response.status_code,
        Some(Err(Bollard::DockerContainerWaitError { code, .. })) => code,
        Some(Err(error)) => return Err(gone(&failure::explain(error, &daemon.endpoint))),
        None => -1,
    };
    Ok(ContainerState { exit_code: Some(code), ..ContainerState::default() })
}

/// Removes the container, running or not. Not to be interrupted; a daemon that is away may come back.
pub(super) async fn remove(daemon: &Daemon, id: &str) -> Result<()> {
    let began = Instant::now();
    loop {
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        let error = match daemon.client.remove_container(id, Some(options)).await {
            // Gone, or somebody else is at it.
            Ok(()) | Err(Bollard::DockerResponseServerError { status_code: 404 | 409, .. }) => {
                return Ok(());
            }
            Err(error) => failure::explain(error, &daemon.endpoint),
        };
        if began.elapsed() > RETURN {
            return Err(error).context("removing the builder's container");
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}
