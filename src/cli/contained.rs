//! A build in a container: the same command line, on the same documents at the same paths, by the builder inside.
//!
//! Owns: which folders the container sees, what is handed on of command line and environment, and how what it says comes
//! back. The container itself is the room `engine`'s.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::{Globals, failure, output};
use crate::document::Node;
use crate::engine::Docker;
use crate::engine::docker::Variables;
use crate::engine::docker::container::{self, Ended, Piece, Request, Shared};
use crate::engine::docker::image::PROGRAM;
use crate::error::{Context, Error, Kind, Result};
use crate::plan::Intent;
use crate::report::replay::Replay;
use crate::report::{Reporter, words};

/// What is built, and from where.
pub struct Job<'a> {
    pub intents: &'a [Intent],
    /// Folders of documents as they were typed.
    pub roots: &'a [PathBuf],
    /// Other files that the builder reads.
    pub read: Vec<PathBuf>,
    /// Other folders that the builder writes to.
    pub written: Vec<PathBuf>,
    pub network: Option<String>,
    pub keep: bool,
}

/// Where root file systems lie in the container while scripts run in them.
const WORK: &str = "/run/imagebuilder";
/// Less than this is no help, and this much is left to everything else.
const LEAST_MEMORY: u64 = 3 << 30;
const RESERVE: u64 = 1 << 30;
/// As jobs in namespaces have it, so that scripts see the same.
const HOST_NAME: &str = "localhost";
/// To whom the builder in a container gives what it makes: `uid:gid`.
pub const OWNER_VARIABLE: &str = "IMAGEBUILDER_OWNER";
/// How people call this program, for lines that are to be typed.
pub const PROGRAM_VARIABLE: &str = "IMAGEBUILDER_PROGRAM";
const PROXIES: [&str; 4] = ["http_proxy", "https_proxy", "no_proxy", "all_proxy"];
const HANDED_ON: [&str; 4] = ["SOURCE_DATE_EPOCH", "RUST_LOG", "NO_COLOR", "IMAGEBUILDER_CACHE_SIZE"];

/// Has everything built in the container, and tells how that ended.
pub fn run(docker: &Docker, job: &Job<'_>, globals: &Globals, reporter: &Reporter) -> Result<()> {
    let variables = variables();
    let request = Request {
        image: docker.image.clone(),
        command: command(std::env::args_os().skip(1), globals)?,
        environment: environment(docker, &variables),
        folders: folders(job, globals)?,
        work_folder: Some(std::env::current_dir().context("finding the current folder")?),
        memory: memory(),
        network: job.network.clone().or_else(|| needs_host(job.intents, &variables).then(|| "host".to_owned())),
        host_name: Some(HOST_NAME.to_owned()),
        keep: job.keep,
    };
    reporter.note(format!("building in a container of `{}` on {}", docker.image, docker.daemon.facts.name));
    tracing::debug!("{request:?}");
    let mut replay = Replay::new(reporter);
    let mut out = Vec::new();
    let ended = container::run(&docker.daemon, &request, &mut |piece| match piece {
        // A summary, or a table; it comes at the end.
        Piece::Out(bytes) => {
            out.extend_from_slice(&bytes[..bytes.len().min((1_usize << 20).saturating_sub(out.len()))])
        }
        Piece::Error(bytes) => replay.feed(bytes),
    });
    replay.feed(b"\n");
    let ended = ended.map_err(|error| match replay.failures().pop() {
        // What stopped the builder is what went wrong.
        Some(own) if error.kind() == Kind::Build && own.kind() != Kind::Interrupted => own,
        _ => error,
    })?;
    output::print(&String::from_utf8_lossy(&out))?;
    if let Some(kept) = &ended.kept {
        reporter.note(format!("the container was kept: `docker logs {kept}`, `docker rm -f {kept}`"));
    }
    verdict(&ended, &mut replay)
}

/// What the exit of the container means; the builder's own words first.
fn verdict(ended: &Ended, replay: &mut Replay) -> Result<()> {
    if ended.code == 0 {
        return Ok(());
    }
    let mut failures = replay.failures();
    // Whoever interrupts this program has been told before: an engine that ends or `docker stop` did this.
    let stopped = ended.code == i64::from(Kind::Interrupted.exit_code());
    if let Some(error) = failures.pop().filter(|_| !stopped) {
        // Of several images; the one that decides about the exit code is told by who called.
        failures.iter().for_each(failure::print);
        return Err(error);
    }
    let said = replay.tail();
    let error = match ended.code {
        _ if ended.out_of_memory => Error::build("the builder's container was killed: it used more memory than it may")
            .hint("give the container engine more memory, or build with `--engine embedded`"),
        137 => Error::build("the builder's container was killed from outside (signal 9)")
            .hint("it was `docker kill`, or this machine ran out of memory; what was finished is in the cache"),
        143 => stopped_from_outside(),
        _ if stopped => stopped_from_outside(),
        code => {
            let more = if ended.error.is_empty() { String::new() } else { format!(" ({})", ended.error) };
            Error::new(Kind::of_exit_code(code), format!("the builder ended with exit code {code}{more}"))
        }
    };
    Err(if said.is_empty() { error } else { error.snippet(said) })
}

fn stopped_from_outside() -> Error {
    Error::build("the builder's container was stopped from outside while the builder ran (signal 15)").hint(
        "it was `docker stop`, or the container engine was ending; build again: what was finished is in the cache",
    )
}

/// The arguments of this process, but for where it runs and how it shows progress. Those that come first hold.
fn command(arguments: impl Iterator<Item = OsString>, globals: &Globals) -> Result<Vec<String>> {
    const WITH_VALUE: [&str; 8] = [
        "--progress",
        "--cache-dir",
        "--output-dir",
        "--engine",
        "--builder-image",
        "--container-network",
        "--sandbox",
        "--work-dir",
    ];
    const ALONE: [&str; 1] = ["--keep-container"];
    let text = |value: &std::ffi::OsStr| match value.to_str() {
        Some(text) => Ok(text.to_owned()),
        None => Err(Error::new(Kind::Usage, format!("{value:?} is not UTF-8, which a container engine needs"))),
    };
    let mut command = vec![PROGRAM.to_owned(), "--progress".into(), "json".into()];
    command.extend(["--cache-dir".into(), text(absolute(&globals.cache_dir()?)?.as_os_str())?]);
    if let Some(folder) = &globals.output_dir {
        command.extend(["--output-dir".into(), text(folder.as_os_str())?]);
    }
    let mut arguments = arguments;
    while let Some(argument) = arguments.next() {
        let argument = text(&argument)?;
        if argument == "--" {
            command.push(argument);
            for rest in arguments.by_ref() {
                command.push(text(&rest)?);
            }
            break;
        }
        let name = argument.split_once('=').map_or(argument.as_str(), |(name, _)| name);
        if ALONE.contains(&name) {
            continue;
        }
        if WITH_VALUE.contains(&name) {
            if name == argument {
                arguments.next();
            }
            continue;
        }
        command.push(argument);
    }
    Ok(command)
}

/// Environment variables that are text.
pub fn variables() -> Variables {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

fn environment(docker: &Docker, variables: &Variables) -> Vec<(String, String)> {
    let own = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let mut environment = vec![
        own("HOME", "/root"),
        own("IMAGEBUILDER_ENGINE", "embedded"),
        own("IMAGEBUILDER_WORK_DIR", WORK),
        own(PROGRAM_VARIABLE, &std::env::args().next().unwrap_or_else(|| "imagebuilder".into())),
    ];
    for proxy in PROXIES {
        let spellings = [proxy.to_owned(), proxy.to_uppercase()];
        let value = spellings.iter().find_map(|name| variables.get(name).filter(|value| !value.is_empty()));
        if let Some(value) = value {
            environment.extend(spellings.iter().map(|name| own(name, value)));
        }
    }
    environment.extend(HANDED_ON.iter().filter_map(|name| Some(own(name, variables.get(*name)?))));
    let (uid, gid) = (rustix::process::getuid(), rustix::process::getgid());
    // A rootless engine's root is the caller already.
    if !uid.is_root() && !docker.daemon.facts.rootless {
        environment.push(own(OWNER_VARIABLE, &format!("{}:{}", uid.as_raw(), gid.as_raw())));
    }
    environment
}

/// A proxy or a mirror on this machine's own loopback is not to be seen from another network.
fn needs_host(intents: &[Intent], variables: &Variables) -> bool {
    let local = |address: &str| {
        let host = address.split_once("://").map_or(address, |(_, rest)| rest);
        let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
        ["localhost", "127.", "[::1]"].iter().any(|start| host.starts_with(start))
    };
    let proxies = PROXIES.iter().filter(|name| **name != "no_proxy");
    let named = |name: &&'static str| {
        [name.to_string(), name.to_uppercase()]
            .into_iter()
            .any(|name| variables.get(&name).is_some_and(|value| local(value)))
    };
    let sources = intents.iter().flat_map(|intent| intent.params.distribution.repositories.values());
    proxies.clone().any(named) || sources.into_iter().any(|repository| local(&repository.source))
}

/// A folder in memory, where there is memory to spare.
fn memory() -> Option<(PathBuf, u64)> {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let available = super::host::meminfo(&text, "MemAvailable")?;
    (available >= LEAST_MEMORY).then(|| (PathBuf::from(WORK), available - RESERVE))
}

/// Everything the builder reads, and what it writes to, at the paths it has here.
fn folders(job: &Job<'_>, globals: &Globals) -> Result<Vec<Shared>> {
    let mut read: BTreeSet<PathBuf> = BTreeSet::new();
    for root in job.roots {
        read.extend(documents(root, job.intents)?);
        // As typed, too, where symbolic links lead there.
        read.insert(absolute(root)?);
    }
    for file in &job.read {
        read.insert(absolute(file)?);
    }
    for repository in job.intents.iter().flat_map(|intent| intent.params.distribution.repositories.values()) {
        let keyring = Path::new(&repository.keyring);
        if keyring.is_absolute() && keyring.is_file() {
            read.insert(keyring.to_owned());
        }
    }
    let mut written: BTreeSet<PathBuf> = job.written.iter().map(|folder| absolute(folder)).collect::<Result<_>>()?;
    let mut shared = Vec::new();
    for intent in job.intents {
        let output =
            globals.output_dir.clone().or_else(|| intent.output_folder.clone()).unwrap_or_else(|| "out".into());
        let output = absolute(&output)?;
        make_writable(&output)?;
        let place = intent.container.volume.as_ref().and_then(|volume| volume.container.clone());
        if let Some(target) = place.filter(|target| *target != output) {
            shared.push(Shared { target, source: output.clone(), read_only: false });
        }
        written.insert(output);
    }
    let cache = absolute(&globals.cache_dir()?)?;
    make_writable(&cache)?;
    written.insert(cache);
    let below = |path: &Path| read.iter().any(|other| other != path && path.starts_with(other));
    let outer: Vec<&PathBuf> = read.iter().filter(|path| !below(path) && !written.contains(*path)).collect();
    for (path, read_only) in outer.into_iter().map(|path| (path, true)).chain(written.iter().map(|path| (path, false)))
    {
        check_place(path)?;
        let source = path.canonicalize().with_context(|| format!("opening {}", path.display()))?;
        shared.push(Shared { target: path.clone(), source, read_only });
    }
    shared.sort();
    shared.dedup();
    Ok(shared)
}

/// Folders of the container that a folder of this machine must not hide.
const TAKEN: [&str; 12] =
    ["/", "/bin", "/dev", "/etc", "/lib", "/lib64", "/proc", "/run", "/sbin", "/sys", "/usr", "/usr/bin"];

fn check_place(path: &Path) -> Result<()> {
    if !TAKEN.iter().any(|taken| path == Path::new(taken)) {
        return Ok(());
    }
    Err(Error::new(Kind::Usage, format!("{} cannot be shared with a container as a whole", path.display()))
        .hint("put documents, output and cache into folders of their own, or build with `--engine embedded`"))
}

/// The folders that hold an entry point and what it refers to: its repository, else what its values came from.
fn documents(root: &Path, intents: &[Intent]) -> Result<BTreeSet<PathBuf>> {
    let real = |path: &Path| path.canonicalize().with_context(|| format!("opening {}", path.display()));
    let root = real(root)?;
    if let Some(repository) = root.ancestors().find(|folder| folder.join(".git").exists()) {
        return Ok([repository.to_owned()].into());
    }
    let mut files = BTreeSet::new();
    intents.iter().for_each(|intent| sources(&intent.document, &mut files));
    let mut folders: BTreeSet<PathBuf> = [root.clone()].into();
    // Names of values that no file holds are no paths.
    folders.extend(files.iter().filter_map(|file| Path::new(file).canonicalize().ok()?.parent().map(Path::to_owned)));
    let common = root.ancestors().find(|folder| folders.iter().all(|other| other.starts_with(folder)));
    match common {
        // A folder between them may be referred to and hold no value.
        Some(common) if common.components().count() > 2 => Ok([common.to_owned()].into()),
        _ => Ok(folders),
    }
}

fn sources(node: &Node, files: &mut BTreeSet<String>) {
    use crate::document::Value;
    files.insert(node.origin.at.file().to_owned());
    files.extend(node.origin.changes.iter().map(|change| change.by.file().to_owned()));
    match &node.value {
        Value::Mapping(mapping) => mapping.entries.iter().for_each(|entry| sources(&entry.value, files)),
        Value::Sequence(items) => items.iter().for_each(|item| sources(item, files)),
        _ => {}
    }
}

fn absolute(path: &Path) -> Result<PathBuf> {
    let absolute = std::path::absolute(path).with_context(|| format!("finding {}", path.display()))?;
    // Engines want paths without `..`.
    if absolute.components().any(|part| part == std::path::Component::ParentDir) {
        return match absolute.canonicalize() {
            Ok(real) => Ok(real),
            Err(_) => {
                std::fs::create_dir_all(&absolute).with_context(|| format!("making {}", absolute.display()))?;
                absolute.canonicalize().with_context(|| format!("opening {}", absolute.display()))
            }
        };
    }
    Ok(absolute)
}

/// Made here, so that it is the caller's; and known to be writable before anything is started.
fn make_writable(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    let probe = tempfile::Builder::new().prefix(".imagebuilder-").tempfile_in(folder);
    let mut probe = probe.with_context(|| format!("writing to {}", folder.display())).map_err(|error| {
        error.hint("name a folder that can be written to, with `--output-dir` or in the documents' `volume`")
    })?;
    std::io::Write::write_all(&mut probe, &[0; 4096]).with_context(|| format!("writing to {}", folder.display()))
}

/// How much the container may use, for the note of `doctor` and friends.
pub fn described(facts: &crate::engine::docker::Facts) -> String {
    let memory = memory().map(|(_, size)| format!(", {} in memory for roots", words::bytes(size))).unwrap_or_default();
    let kind = match (facts.rootless, facts.remapped) {
        (true, _) => ", rootless",
        (false, true) => ", with remapped users",
        _ => "",
    };
    format!("{} (API {}, {}{kind}{memory})", facts.name, facts.api, facts.architecture)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn globals() -> Globals {
        use clap::Parser;
        let line = ["imagebuilder", "--cache-dir", "/c", "--output-dir", "o", "doctor"];
        super::super::Cli::parse_from(line).globals
    }

    #[test]
    fn the_command_line_is_handed_on() {
        let line = "--progress plain build --engine=docker --keep-container --cache-dir x --verify a --builder-image i -- --engine";
        let arguments = line.split(' ').map(OsString::from);
        let command = command(arguments, &globals()).unwrap().join(" ");
        assert_eq!(
            command,
            "/usr/bin/imagebuilder --progress json --cache-dir /c --output-dir o build --verify a -- --engine"
        );
    }

    #[test]
    fn nothing_of_the_containers_own_is_hidden() {
        assert_eq!(check_place(Path::new("/usr")).unwrap_err().kind(), Kind::Usage);
        assert!(check_place(Path::new("/srv/images")).is_ok());
    }

    #[test]
    fn loopback_needs_the_hosts_network() {
        let variables = |name: &str, value: &str| Variables::from([(name.to_owned(), value.to_owned())]);
        assert!(needs_host(&[], &variables("HTTPS_PROXY", "http://u:p@127.0.0.1:3128")));
        assert!(!needs_host(&[], &variables("no_proxy", "localhost")));
        assert!(!needs_host(&[], &variables("http_proxy", "http://proxy:3128")));
    }

    #[test]
    fn the_end_of_a_container_is_explained() {
        let ended = |code, out_of_memory| Ended { code, out_of_memory, error: String::new(), kept: None };
        let quiet = Reporter::quiet();
        let of = |ended: &Ended, said: &str| {
            let mut replay = Replay::new(&quiet);
            replay.feed(said.as_bytes());
            verdict(ended, &mut replay)
        };
        assert!(of(&ended(0, false), "").is_ok());
        let failed = "{\"event\":\"failed\",\"exitCode\":7,\"message\":\"m\"}\n";
        assert_eq!(of(&ended(7, false), failed).unwrap_err().kind(), Kind::Drift);
        let error = of(&ended(137, true), "words\n").unwrap_err();
        assert!(error.message().contains("more memory") && error.rendered_snippet() == Some("words\n"));
        assert!(of(&ended(137, false), "").unwrap_err().message().contains("killed from outside"));
        assert_eq!(of(&ended(5, false), "").unwrap_err().kind(), Kind::Network);
        let stopped = "{\"event\":\"failed\",\"exitCode\":130,\"message\":\"interrupted\"}\n";
        let error = of(&ended(130, false), stopped).unwrap_err();
        assert!(error.kind() == Kind::Build && error.message().contains("stopped from outside"), "{error}");
    }

    #[test]
    fn documents_outside_of_a_repository_are_found_by_their_values() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().canonicalize().unwrap().join("a/b");
        std::fs::create_dir_all(&folder).unwrap();
        assert_eq!(documents(&folder, &[]).unwrap(), [folder.clone()].into());
        std::fs::create_dir(dir.path().join(".git")).unwrap();
        assert_eq!(documents(&folder, &[]).unwrap(), [dir.path().canonicalize().unwrap()].into());
    }
}
