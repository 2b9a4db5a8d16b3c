//! Workers beside dpkg: they run the programs that scripts have put off, in the same target.
//!
//! Owns: [`Workers`]. A worker is a job of its own in the sandbox, a shell that runs one command after the other. It is
//! started with the first command that is put off, while dpkg's own job is there, so that the mount points of the target
//! are made and taken away by that one alone. When dpkg has ended, what was mounted for it is gone; a worker stays in the
//! folder of the pipes. Commands that are put off must not depend on each other, with one exception: what compiles the
//! library of Python ([`Lane`]). What was compiled of the same in an earlier build is not compiled again
//! ([`bytecode`](super::bytecode)).

use std::collections::VecDeque;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::Duration;

use super::bytecode::{Batch, Kept};
use super::{python, scripts, units};
use crate::error::{Context, Error, Result};
use crate::interrupt;
use crate::package::root::Root;
use crate::report::words;
use crate::sandbox::pipes::{Asker, Pipes, named_pipe};
use crate::sandbox::{Job, Sandbox};
use crate::tree::Digest;
use crate::tree::clusters::Clusters;

const READY: &str = "imagebuilder: ready";
const DONE: &str = "imagebuilder: done ";
/// Longer commands are not put off; a line of this length goes through a pipe at once.
const COMMAND_BYTES: usize = 4000;

pub(super) struct Workers<'scope> {
    queue: Arc<Queue>,
    asker: Asker,
    dispatcher: Option<ScopedJoinHandle<'scope, Result<()>>>,
}

#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

/// What may run beside what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lane {
    /// Compiles modules of Python's own library: alone among all that run Python, in the order in which it was put off,
    /// so that every compiler finds of the library what it would have found without being put off.
    Library,
    /// Runs Python.
    Python,
    /// Has nothing to do with any other.
    Other,
}

#[derive(Debug)]
struct Order {
    lane: Lane,
    line: String,
    /// What it compiles, where that is known.
    batch: Option<Batch>,
}

#[derive(Default)]
struct State {
    commands: VecDeque<Order>,
    /// How many of them are being run that run Python, the library among them.
    pythons: usize,
    libraries: usize,
    /// How many that compile the library have been run.
    compiled: usize,
    /// Workers that wait for a command or work on one.
    ready: usize,
    /// Workers that could not be started, or have ended.
    gone: usize,
    closed: bool,
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.changed.notify_all();
    }

    /// The next command; nothing when there will be none.
    fn next(&self) -> Option<Order> {
        let mut state = self.state();
        loop {
            if let Some(order) = state.startable().and_then(|at| state.commands.remove(at)) {
                state.count(order.lane, 1);
                return Some(order);
            }
            if (state.closed && state.commands.is_empty()) || interrupt::check().is_err() {
                return None;
            }
            state = self.wait(state);
        }
    }

    /// Not for ever, so that an interrupt is noticed.
    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait_timeout(state, Duration::from_millis(200)).unwrap_or_else(PoisonError::into_inner).0
    }
}

impl State {
    /// The first command that may run beside those that run now.
    fn startable(&self) -> Option<usize> {
        let mut library_first = false;
        self.commands.iter().position(|order| match order.lane {
            Lane::Other => true,
            Lane::Python => !library_first && self.libraries == 0,
            Lane::Library => !std::mem::replace(&mut library_first, true) && self.pythons == 0,
        })
    }

    fn count(&mut self, lane: Lane, by: isize) {
        let add = |count: &mut usize| *count = count.saturating_add_signed(by);
        match lane {
            Lane::Other => {}
            Lane::Python => add(&mut self.pythons),
            Lane::Library => {
                add(&mut self.pythons);
                add(&mut self.libraries);
                self.compiled += usize::from(by < 0);
            }
        }
    }
}

impl<'scope> Workers<'scope> {
    /// `job` is what every worker's job has in common. Nothing runs before the first command is put off.
    pub(super) fn start<'a: 'scope>(
        scope: &'scope Scope<'scope, '_>,
        sandbox: &'a dyn Sandbox,
        root: &Path,
        folder: &Path,
        job: Job,
        clusters: Option<&'a Clusters>,
    ) -> Result<Self> {
        let (pipes, asker) = Pipes::make(folder)?;
        let queue = Arc::new(Queue::default());
        let (root, folder, kept) = (root.to_path_buf(), folder.to_path_buf(), clusters.map(Kept::new));
        let crew = Crew { sandbox, root, folder, job, kept, queue: queue.clone() };
        let dispatcher = scope.spawn(move || crew.dispatch(pipes, scope));
        Ok(Workers { queue, asker, dispatcher: Some(dispatcher) })
    }

    /// Waits for all commands; the first that failed is the error.
    pub(super) fn finish(mut self) -> Result<()> {
        let dispatcher = self.close();
        let failed = || Error::build("the helper of maintainer scripts has failed");
        dispatcher.ok_or_else(failed)?.join().map_err(|_| failed())?
    }

    fn close(&mut self) -> Option<ScopedJoinHandle<'scope, Result<()>>> {
        self.queue.change(|state| state.closed = true);
        let told = self.asker.quit();
        self.dispatcher.take().filter(|_| told)
    }
}

impl Drop for Workers<'_> {
    fn drop(&mut self) {
        if self.dispatcher.is_some() {
            // Whatever was put off is not wanted any more.
            self.queue.change(|state| state.commands.clear());
            self.close();
        }
    }
}

struct Crew<'a> {
    sandbox: &'a dyn Sandbox,
    root: PathBuf,
    folder: PathBuf,
    job: Job,
    kept: Option<Kept<'a>>,
    queue: Arc<Queue>,
}

/// What a worker works on, and the key of what comes of it.
type Running = (Order, Option<Digest>);

impl<'a> Crew<'a> {
    /// Hears what scripts put off, until there is no script any more; then waits for the workers.
    fn dispatch<'scope>(self, mut pipes: Pipes, scope: &'scope Scope<'scope, '_>) -> Result<()>
    where
        'a: 'scope,
    {
        let crew = Arc::new(self);
        let mut workers = Vec::new();
        while let Some(fields) = pipes.question() {
            if crew.units(&fields) {
                pipes.answer(b"done\n");
                continue;
            }
            let command = crew.command(&fields);
            if command.is_some() && workers.is_empty() {
                let count = std::thread::available_parallelism().map_or(1, usize::from);
                for number in 0..count {
                    let crew = crew.clone();
                    workers.push(scope.spawn(move || crew.work(number)));
                }
                crew.wait_for_ready(count);
            }
            let answer: &[u8] = match command {
                Some(command) => {
                    crew.queue.change(|state| state.commands.push_back(command));
                    b"ok\n"
                }
                None => b"plain\n",
            };
            pipes.answer(answer);
        }
        let mut result = Ok(());
        for worker in workers {
            let ended =
                worker.join().unwrap_or_else(|_| Err(Error::build("a worker of maintainer scripts has failed")));
            result = result.and(ended);
        }
        // What it saves is only time.
        if let Err(error) = crew.kept.as_ref().map_or(Ok(()), Kept::finish) {
            tracing::debug!("byte code is not kept: {error}");
        }
        // With no worker left, nobody has done these.
        let left = crew.queue.state().commands.len();
        result.and(match left {
            0 => Ok(()),
            _ => Err(Error::build(format!("{left} commands of maintainer scripts were not run"))),
        })
    }

    /// Whether this was a question to the unit helper, and is done.
    fn units(&self, fields: &[Vec<u8>]) -> bool {
        let words: Option<Vec<&str>> = fields.iter().map(|field| std::str::from_utf8(field).ok()).collect();
        let Some(["deb-systemd-helper", words @ ..]) = words.as_deref() else { return false };
        let done = Root::open(&self.root).and_then(|root| units::answer(&root, words));
        done.unwrap_or_else(|error| {
            tracing::debug!("`deb-systemd-helper {}` is left to the program itself: {error}", words.join(" "));
            false
        })
    }

    /// What a worker's shell is told; nothing for what cannot be put off.
    fn command(&self, fields: &[Vec<u8>]) -> Option<Order> {
        let words: Option<Vec<&str>> = fields.iter().map(|field| std::str::from_utf8(field).ok()).collect();
        let words = words?;
        match words.as_slice() {
            ["later", list] => return self.later(list),
            ["deb-systemd-helper", ..] => return None,
            _ => {}
        }
        let compile = self.compile(&words).unwrap_or_else(|error| {
            tracing::debug!("`{}` is left to the program itself: {error}", words.join(" "));
            None
        });
        let (line, batch) = match compile {
            Some((line, batch)) => (line, batch),
            None => (line(&words, self.sandbox.mounts())?, None),
        };
        Some(Order { lane: Lane::Python, line, batch })
    }

    /// A command of a script that was edited ([`super::scripts`]); its words are lines of a file in our folder.
    fn later(&self, list: &str) -> Option<Order> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-.".contains(&byte);
        let text = list.bytes().all(plain).then(|| std::fs::read_to_string(self.folder.join(list)).ok())??;
        let words: Vec<&str> = text.lines().collect();
        let lane = match words.as_slice() {
            [_, "-E", "-S", ..] => Lane::Library,
            ["depmod", _] if !scripts::modules_are_read(&Root::open(&self.root).ok()?).ok()? => Lane::Other,
            ["systemd-hwdb", ..] => Lane::Other,
            _ => return None,
        };
        // Its script does not mind if it fails.
        let status = if words[0] == "systemd-hwdb" { " || true" } else { "" };
        let batch = match words.as_slice() {
            [interpreter, _, _, program, modules @ ..]
                if lane == Lane::Library && program.ends_with("/py_compile.py") =>
            {
                Batch::new(&words[..4], interpreter, modules.iter().copied())
            }
            _ => None,
        };
        let line = format!(
            "(set --; while IFS= read -r word; do set -- \"$@\" \"${{word}}\"; done <{list}; cd / && exec \"$@\"){status}"
        );
        Some(Order { lane, line, batch })
    }

    /// Modules go to the compiler by way of a file: a package has any number of them.
    fn compile(&self, words: &[&str]) -> Result<Option<(String, Option<Batch>)>> {
        let ["py3compile", arguments @ ..] = words else { return Ok(None) };
        let Some(modules) = python::modules(&Root::open(&self.root)?, arguments)? else { return Ok(None) };
        let mut file =
            tempfile::Builder::new().prefix("modules-").tempfile_in(&self.folder).context("listing modules")?;
        let text: String = modules.names.iter().map(|name| format!("{name}\n")).collect();
        file.write_all(text.as_bytes()).context("listing modules")?;
        let (_, path) = file.keep().map_err(|error| error.error).context("listing modules")?;
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let line = format!("(cd / && exec {} -m py_compile -) <{name}", words::shell(&modules.interpreter));
        let batch =
            Batch::new(&["-m", "py_compile", "-"], &modules.interpreter, modules.names.iter().map(String::as_str));
        Ok(Some((line, batch)))
    }

    /// The next command that has to be run; those whose results were kept are done on the way.
    fn next(&self) -> Option<Running> {
        loop {
            let order = self.queue.next()?;
            let (kept, batch) = match (&self.kept, &order.batch) {
                (Some(kept), Some(batch)) => (kept, batch),
                _ => return Some((order, None)),
            };
            let compiled = self.queue.state().compiled;
            let found = Root::open(&self.root).and_then(|root| {
                let key = kept.key(&root, batch, compiled)?;
                Ok((key, kept.recall(&root, batch, key)?))
            });
            match found {
                Ok((_, true)) => self.queue.change(|state| state.count(order.lane, -1)),
                Ok((key, false)) => return Some((order, Some(key))),
                Err(error) => {
                    tracing::debug!("`{}`: its results are not kept: {error}", order.line);
                    return Some((order, None));
                }
            }
        }
    }

    /// A command has ended well.
    fn keep(&self, (order, key): &Running) {
        let (Some(kept), Some(batch), Some(key)) = (&self.kept, &order.batch, key) else { return };
        // What it saves is only time.
        if let Err(error) = Root::open(&self.root).and_then(|root| kept.keep(&root, batch, *key)) {
            tracing::debug!("`{}`: its results are not kept: {error}", order.line);
        }
    }

    fn wait_for_ready(&self, count: usize) {
        let mut state = self.queue.state();
        while state.ready + state.gone < count {
            state = self.queue.wait(state);
        }
    }

    fn work(&self, number: usize) -> Result<()> {
        let result = self.serve(number);
        self.queue.change(|state| state.gone += 1);
        result
    }

    fn serve(&self, number: usize) -> Result<()> {
        let name = format!("worker-{number}");
        let mut orders = named_pipe(&self.folder.join(&name))?;
        let script = format!(
            "cd /{folder} && exec 3<{name}; echo '{READY}'
while read -r command <&3; do eval \"${{command}}\" 3<&-; echo \"{DONE}$?\"; done",
            folder = super::FOLDER
        );
        let mut job = self.job.clone();
        job.argv = ["sh", "-c", &script].map(str::to_owned).to_vec();
        let mut running: Option<Running> = None;
        let mut said = String::new();
        let mut failure = None;
        let finished = self.sandbox.run(&self.root, &job, &mut |line| {
            if line == READY {
                self.queue.change(|state| state.ready += 1);
            } else if let Some(status) = line.strip_prefix(DONE) {
                if let Some(done) = running.take() {
                    if status == "0" {
                        self.keep(&done);
                    }
                    self.queue.change(|state| state.count(done.0.lane, -1));
                    if status != "0" && failure.is_none() {
                        let message = format!("`{}` failed: exit code {status}\n{}", done.0.line, said.trim_end());
                        failure = Some(Error::build(message));
                    }
                }
            } else {
                said.push_str(line);
                said.push('\n');
                return;
            }
            said.clear();
            let next = if failure.is_none() { self.next() } else { None };
            let order = next.as_ref().map_or("exit 0", |(order, _)| order.line.as_str());
            if let Err(error) = writeln!(orders, "{order}") {
                tracing::warn!("giving a worker its command: {error}");
            }
            running = next;
        })?;
        match failure {
            Some(error) => Err(error),
            None if finished.success => Ok(()),
            None => Err(Error::new(finished.kind(), format!("a worker of maintainer scripts: {}", finished.status))),
        }
    }
}

/// As words for a shell; nothing for what cannot be a line. With mounts, dpkg's job alone sees what is laid over the
/// program, and what is mounted is gone when dpkg has ended, so the program has its own name. Without, a worker would find
/// what is laid over it; the folder with its other name stays as long as a worker needs it.
fn line(words: &[&str], mounts: bool) -> Option<String> {
    let plain = !words.is_empty() && words.iter().all(|word| !word.contains('\n'));
    let (program, arguments) = words.split_first()?;
    let program = if mounts { (*program).to_owned() } else { format!("/{}/plain/{program}", super::FOLDER) };
    let words = std::iter::once(program.as_str()).chain(arguments.iter().copied());
    let line = words.map(words::shell).collect::<Vec<_>>().join(" ");
    (plain && line.len() <= COMMAND_BYTES).then(|| format!("(cd / && exec {line})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_library_is_compiled_alone_and_before_what_comes_after_it() {
        use Lane::{Library, Other, Python};
        let commands = [Python, Library, Other, Python, Library, Other];
        let commands = commands.iter().map(|lane| Order { lane: *lane, line: String::new(), batch: None }).collect();
        let mut state = State { commands, ..State::default() };
        let start = |state: &mut State| {
            let lane = state.startable().and_then(|at| state.commands.remove(at)).map(|order| order.lane);
            lane.inspect(|lane| state.count(*lane, 1))
        };
        assert_eq!(start(&mut state), Some(Python));
        // The library waits for that one, and everything with Python behind it for the library.
        assert_eq!([start(&mut state), start(&mut state), start(&mut state)], [Some(Other), Some(Other), None]);
        state.count(Python, -1);
        assert_eq!([start(&mut state), start(&mut state)], [Some(Library), None]);
        state.count(Library, -1);
        assert_eq!([start(&mut state), start(&mut state)], [Some(Python), None]);
        state.count(Python, -1);
        assert_eq!([start(&mut state), start(&mut state)], [Some(Library), None]);
    }

    #[test]
    fn commands_are_lines_for_a_shell() {
        assert_eq!(
            line(&["py3compile", "-p", "x:amd64", "/usr/lib/a b"], true).unwrap(),
            "(cd / && exec py3compile -p x:amd64 '/usr/lib/a b')"
        );
        assert_eq!(
            line(&["py3compile", "-p", "x:amd64", "/usr/lib/a b"], false).unwrap(),
            "(cd / && exec /run/imagebuilder-helpers/plain/py3compile -p x:amd64 '/usr/lib/a b')"
        );
        assert_eq!(line(&["py3compile", "a\nb"], true), None);
        assert_eq!(line(&[], true), None);
        assert_eq!(line(&["x", &"y".repeat(COMMAND_BYTES)], true), None);
    }
}
