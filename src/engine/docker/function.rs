//! Functions in containers (kustomize's KRM functions): a container that reads its standard input and prints.
//!
//! Owns: [`run`]. The container has no network, no capability, nobody's user id, and sees nothing of this machine but
//! what is mounted, read-only. Images are never pulled: what is rendered must not depend on what a registry gives today.

use std::collections::HashMap;

use bollard::container::{AttachContainerResults, LogOutput};
use bollard::models::{ContainerCreateBody, HostConfig, HostConfigLogConfig, Mount, MountType};
use bollard::query_parameters::{AttachContainerOptionsBuilder, CreateContainerOptionsBuilder, StartContainerOptions};
use futures_util::StreamExt;
use futures_util::future::{Either, select};
use tokio::io::AsyncWriteExt;

use super::{Daemon, TICK, Variables, container, failure, image};
use crate::error::{Context, Error, Kind, Result};
use crate::interrupt;
use crate::kustomize::function::{Answer, Call};

/// The largest output that is taken, in bytes.
const OUTPUT_LIMIT: usize = 64 << 20;
/// Of what a function says on its standard error, the last bytes are kept.
const SAID_LIMIT: usize = 16 << 10;
/// A function is a filter: far fewer processes, and less memory, do for it.
const PROCESSES: i64 = 512;
const MEMORY: i64 = 2 << 30;

/// Connects to the engine that the variables name, and runs a function in it.
pub fn run(variables: &Variables, call: &Call) -> Result<Answer> {
    let daemon = Daemon::connect(variables).map_err(|error| {
        error.hint("functions in containers need a container engine (Docker or Podman) that answers")
    })?;
    if image::find(&daemon, &call.image)?.is_none() {
        return Err(Error::build(format!("the container engine has no image `{}`", call.image))
            .hint(format!("bring it there first: `docker pull {}`; it is never pulled from here", call.image)));
    }
    let options = CreateContainerOptionsBuilder::default().build();
    let created = daemon.ask(daemon.client.create_container(Some(options), body(&daemon, variables, call)?));
    let id = created.with_context(|| format!("creating a container of `{}`", call.image))?.id;
    let answer = daemon.runtime.block_on(converse(&daemon, &id, &call.input));
    let removed = daemon.runtime.block_on(container::remove(&daemon, &id));
    let answer = answer.map_err(|error| match &removed {
        Ok(()) => error,
        Err(_) => error.hint(format!("its container may be left: `docker rm -f {id}`")),
    })?;
    removed.map(|()| answer)
}

fn body(daemon: &Daemon, variables: &Variables, call: &Call) -> Result<ContainerCreateBody> {
    let text = |path: &std::path::Path| match path.to_str() {
        Some(text) => Ok(text.to_owned()),
        None => Err(Error::build(format!("{}: a container engine takes names in UTF-8 only", path.display()))),
    };
    let mounts = call.mounts.iter().map(|mount| {
        Ok(Mount {
            target: Some(text(&mount.target)?),
            source: Some(text(&mount.source)?),
            typ: Some(MountType::BIND),
            read_only: Some(true),
            ..Mount::default()
        })
    });
    let environment = call.environment.iter().filter_map(|(name, value)| {
        let value = value.as_ref().or_else(|| variables.get(name))?;
        Some(format!("{name}={value}"))
    });
    let host = HostConfig {
        mounts: Some(mounts.collect::<Result<_>>()?),
        network_mode: Some("none".to_owned()),
        cap_drop: Some(vec!["ALL".to_owned()]),
        security_opt: Some(vec!["no-new-privileges".to_owned()]),
        // Without cgroups of its own, a rootless engine cannot limit anything, and says so.
        pids_limit: (!daemon.facts.rootless).then_some(PROCESSES),
        memory: (!daemon.facts.rootless).then_some(MEMORY),
        // What it prints is read once, as it comes.
        log_config: Some(HostConfigLogConfig { typ: Some("none".to_owned()), config: None }),
        ..HostConfig::default()
    };
    Ok(ContainerCreateBody {
        image: Some(call.image.clone()),
        env: Some(environment.collect()),
        user: Some("65534:65534".to_owned()),
        labels: Some(HashMap::from([(container::LABEL.to_owned(), "function".to_owned())])),
        attach_stdin: Some(true),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        open_stdin: Some(true),
        stdin_once: Some(true),
        tty: Some(false),
        host_config: Some(host),
        ..ContainerCreateBody::default()
    })
}

/// Attaches before the start, so that nothing is missed; writes and reads at the same time, so that none waits for the
/// other.
async fn converse(daemon: &Daemon, id: &str, input: &[u8]) -> Result<Answer> {
    let explain = |error| failure::explain(error, &daemon.endpoint);
    let options = AttachContainerOptionsBuilder::default().stream(true).stdin(true).stdout(true).stderr(true).build();
    let attached = super::patient(daemon.client.attach_container(id, Some(options))).await?;
    let AttachContainerResults { mut output, input: mut sink } =
        attached.map_err(explain).context("attaching to the container")?;
    let started = super::patient(daemon.client.start_container(id, None::<StartContainerOptions>)).await?;
    started.map_err(explain).context("starting the container")?;
    let mut answer = Answer::default();
    // A function may end without reading all; what counts then is what it printed.
    let write = async {
        if sink.write_all(input).await.is_ok() {
            _ = sink.flush().await;
        }
        _ = sink.shutdown().await;
    };
    let mut write = std::pin::pin!(write);
    let mut written = false;
    loop {
        let next = std::pin::pin!(async {
            if written {
                return output.next().await;
            }
            match select(output.next(), write.as_mut()).await {
                Either::Left((news, _)) => news,
                Either::Right(((), next)) => {
                    written = true;
                    next.await
                }
            }
        });
        let tick = std::pin::pin!(tokio::time::sleep(TICK));
        match select(next, tick).await {
            Either::Left((None, _)) => break,
            Either::Left((Some(Ok(LogOutput::StdErr { message })), _)) => hear(&mut answer.said, &message),
            Either::Left((Some(Ok(piece)), _)) => {
                let bytes = piece.as_ref();
                if answer.output.len() + bytes.len() > OUTPUT_LIMIT {
                    let limit = OUTPUT_LIMIT >> 20;
                    return Err(Error::new(Kind::Documents, format!("it prints more than {limit} MiB")));
                }
                answer.output.extend_from_slice(bytes);
            }
            Either::Left((Some(Err(error)), _)) => return Err(explain(error)),
            Either::Right(_) => {
                if let Err(error) = interrupt::check() {
                    container::stop(daemon, id).await;
                    return Err(error);
                }
            }
        }
    }
    let state = container::ended(daemon, id).await?;
    answer.code = state.exit_code.unwrap_or(-1);
    if state.oom_killed == Some(true) {
        return Err(Error::build("it was ended because it needs more memory than it may have"));
    }
    Ok(answer)
}

/// Keeps the end of what is said.
fn hear(said: &mut String, bytes: &[u8]) {
    said.push_str(&String::from_utf8_lossy(bytes));
    if said.len() > 2 * SAID_LIMIT {
        let from = said.len() - SAID_LIMIT;
        let from = (from..said.len()).find(|at| said.is_char_boundary(*at)).unwrap_or(said.len());
        said.drain(..from);
    }
}
