//! A serial line with a person's habits: wait for words, type lines, log in, run commands and read their answers.
//!
//! Owns: [`Console`] over any pair of reader and writer. What was received is kept (bounded) for error messages.

use std::io::{Read, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::{Context, Error, Kind, Result};
use crate::interrupt;

/// A machine that says more than this is broken; a normal boot says about 100 kB.
const MAX_RECEIVED: usize = 32 << 20;
/// The line discipline of a terminal takes 4095 bytes a line (termios(3), canonical mode).
const MAX_LINE: usize = 3500;
const PROMPT_TIMEOUT: Duration = Duration::from_secs(120);

pub struct Console {
    writer: Box<dyn Write + Send>,
    received: Arc<Received>,
    /// Everything before this place has been looked at.
    seen: usize,
    commands: usize,
}

#[derive(Default)]
struct Received {
    state: Mutex<State>,
    news: Condvar,
}

#[derive(Default)]
struct State {
    bytes: Vec<u8>,
    ended: bool,
}

/// What a command printed, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandResult {
    pub status: i32,
    /// Output and errors together, lines ended by `\n`, without the last line end.
    pub output: String,
}

impl Console {
    /// `listen` gets everything as it arrives, for a log or a terminal.
    pub fn new(
        mut reader: impl Read + Send + 'static,
        writer: impl Write + Send + 'static,
        mut listen: impl FnMut(&[u8]) + Send + 'static,
    ) -> Self {
        let received = Arc::new(Received::default());
        let ours = received.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            loop {
                let length = match reader.read(&mut buffer) {
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                    result => result.unwrap_or(0),
                };
                listen(&buffer[..length]);
                let mut state = lock(&ours.state);
                let room = MAX_RECEIVED - state.bytes.len();
                state.bytes.extend_from_slice(&buffer[..length.min(room)]);
                state.ended = length == 0 || length > room;
                ours.news.notify_all();
                if state.ended {
                    return;
                }
            }
        });
        Console { writer: Box::new(writer), received, seen: 0, commands: 0 }
    }

    /// Everything received so far, as text.
    pub fn transcript(&self) -> String {
        String::from_utf8_lossy(&lock(&self.received.state).bytes).into_owned()
    }

    /// Waits until one of the words appears in what has not been looked at yet; tells which. What comes after it
    /// counts as not looked at.
    pub fn wait_for(&mut self, words: &[&str], timeout: Duration) -> Result<usize> {
        let deadline = Instant::now() + timeout;
        let mut state = lock(&self.received.state);
        loop {
            let unseen = &state.bytes[self.seen..];
            let hit = words
                .iter()
                .enumerate()
                .filter_map(|(index, word)| Some((memchr::memmem::find(unseen, word.as_bytes())?, index, word.len())))
                .min();
            if let Some((at, index, length)) = hit {
                self.seen += at + length;
                return Ok(index);
            }
            let wanted = words.join("` or `");
            if state.ended {
                return Err(silence(format!("the machine stopped before it said `{wanted}`"), &state.bytes));
            }
            interrupt::check()?;
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let text = format!("the machine did not say `{wanted}` within {} s", timeout.as_secs_f64().ceil());
                return Err(silence(text, &state.bytes));
            }
            let wait = left.min(Duration::from_millis(200));
            state = self.received.news.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    pub fn send_line(&mut self, line: &str) -> Result<()> {
        if line.len() > MAX_LINE || line.contains('\n') {
            return Err(Error::new(Kind::Usage, format!("not one line of at most {MAX_LINE} bytes: {line}")));
        }
        self.writer
            .write_all(format!("{line}\r").as_bytes())
            .and_then(|()| self.writer.flush())
            .context("typing on the serial line")
    }

    /// Logs in at the prompt of getty(8), becomes root by sudo(8), and prepares the shell for [`Console::run`].
    pub fn log_in(&mut self, user: &str, password: &str, timeout: Duration) -> Result<()> {
        let deadline = Instant::now() + timeout;
        let left = || deadline.saturating_duration_since(Instant::now());
        // An emulated machine on a busy host takes as long for a shell as it does for everything else.
        let patience = PROMPT_TIMEOUT.max(timeout / 3);
        // A system that gave up will not come to a prompt; no need to wait for the end of the time.
        let words = ["login: ", "Kernel panic", "You are in emergency mode", "the root account is locked"];
        let word = self.wait_for(&words, left())?;
        if word > 0 {
            let text = format!("the machine gave up while booting: it said `{}`", words[word]);
            return Err(silence(text, &lock(&self.received.state).bytes));
        }
        for attempt in 1.. {
            self.send_line(user)?;
            // Messages of the kernel can tear a prompt apart; another empty line brings it back.
            if self.wait_for(&["Password: "], PROMPT_TIMEOUT).is_ok() {
                self.send_line(password)?;
                // Debian's and Ubuntu's prompts end in `$ `, with colour codes or without.
                if self.wait_for(&["$ ", "# ", "$\u{1b}", "Login incorrect"], patience)? < 3 {
                    break;
                }
            }
            if attempt == 5 {
                return Err(Error::new(Kind::Checks, format!("logging in as `{user}` failed {attempt} times")));
            }
            self.send_line("")?;
            self.wait_for(&["login: "], left())?;
        }
        // A plain shell without line editing, prompts, echo and wrapped lines: what comes back is output only.
        self.send_line("exec sudo -n env PS1= PS2= TERM=dumb LC_ALL=C.UTF-8 sh")?;
        self.send_line("stty -echo cols 0; dmesg -n 1; echo re''ady-for-commands")?;
        self.wait_for(&["ready-for-commands"], patience)?;
        Ok(())
    }

    /// Runs a command in the shell that [`Console::log_in`] left, and waits for its end.
    pub fn run(&mut self, command: &str, timeout: Duration) -> Result<CommandResult> {
        self.commands += 1;
        let mark = format!("imagebuilder-{}", self.commands);
        // The quotes keep the marks out of an echo of the line. `< /dev/null`: a command must not eat the next line.
        self.send_line(&format!(
            "echo '{mark}'-begin; ( {command} ) 2>&1 </dev/null; status=$?; echo; echo '{mark}'-end $status"
        ))?;
        let context = || format!("running `{command}` in the machine");
        self.wait_for(&[&format!("{mark}-begin")], PROMPT_TIMEOUT).with_context(context)?;
        let start = self.seen;
        self.wait_for(&[&format!("{mark}-end ")], timeout).with_context(context)?;
        let end = self.seen - mark.len() - "-end ".len();
        let output = clean(&lock(&self.received.state).bytes[start..end]);
        let at = self.seen;
        self.wait_for(&["\n"], PROMPT_TIMEOUT).with_context(context)?;
        let status = clean(&lock(&self.received.state).bytes[at..self.seen]);
        let status = status.trim().parse().map_err(|_| {
            Error::build(format!("`{}` is not the status of a command", status.trim())).add_context(context())
        })?;
        Ok(CommandResult { status, output })
    }
}

/// The lock is only poisoned when the reader thread panicked; what it left is still what was received.
fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn clean(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).replace('\r', "").trim_matches('\n').to_owned()
}

/// An error with the last lines of the machine below it.
fn silence(message: String, bytes: &[u8]) -> Error {
    let text = String::from_utf8_lossy(bytes);
    let lines: Vec<&str> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    let tail = lines[lines.len().saturating_sub(25)..].iter().map(|line| format!("  | {}\n", printable(line)));
    Error::new(Kind::Checks, message).snippet(tail.collect::<String>())
}

/// Without escape sequences of terminals, which would act on the reader's own.
fn printable(line: &str) -> String {
    anstream::adapter::strip_str(line).to_string().chars().filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    const SHORT: Duration = Duration::from_secs(20);

    /// A shell script plays the machine.
    fn machine(script: &str) -> Console {
        let mut child =
            Command::new("sh").args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (stdout, stdin) = (child.stdout.take().unwrap(), child.stdin.take().unwrap());
        std::thread::spawn(move || child.wait());
        // A serial line in raw mode: a carriage return ends a line typed, a shell wants a line feed.
        Console::new(stdout, Lines(stdin), |_| {})
    }

    struct Lines<W>(W);

    impl<W: Write> Write for Lines<W> {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let bytes: Vec<u8> = bytes.iter().map(|byte| if *byte == b'\r' { b'\n' } else { *byte }).collect();
            self.0.write_all(&bytes).map(|()| bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            self.0.flush()
        }
    }

    #[test]
    fn waits_for_the_first_of_several_words() {
        let mut console = machine("echo one two three; sleep 60");
        assert_eq!(console.wait_for(&["three", "two"], SHORT).unwrap(), 1);
        assert_eq!(console.wait_for(&["one", "three"], SHORT).unwrap(), 1);
        let error = console.wait_for(&["four"], Duration::from_millis(50)).unwrap_err();
        assert!(error.message().contains("did not say `four`"));
        assert!(error.rendered_snippet().unwrap().contains("| one two three"));
    }

    #[test]
    fn a_machine_that_stops_is_noticed() {
        let mut console = machine("printf '\\033[31mpanic\\n'");
        let error = console.wait_for(&["login: "], SHORT).unwrap_err();
        assert!(error.message().contains("stopped"));
        assert_eq!(error.rendered_snippet().unwrap(), "  | panic\n");
    }

    #[test]
    fn a_panic_is_not_waited_out() {
        let mut console = machine("echo 'Kernel panic - not syncing'; sleep 60");
        let error = console.log_in("a", "b", SHORT).unwrap_err();
        assert!(error.message().contains("gave up while booting"), "{error}");
    }

    #[test]
    fn commands_give_their_output_and_status() {
        let mut console = machine("exec sh");
        let result = console.run("echo out; echo err >&2; exit 3", SHORT).unwrap();
        assert_eq!(result, CommandResult { status: 3, output: "out\nerr".into() });
        assert_eq!(console.run("true", SHORT).unwrap(), CommandResult { status: 0, output: String::new() });
        assert_eq!(console.run("cat; printf x", SHORT).unwrap().output, "x");
        assert!(console.run("a\nb", SHORT).is_err());
    }

    #[test]
    fn logs_in_and_tries_again() {
        let script = "echo 'node login: '; read u; echo 'Password: '; read p; echo 'Login incorrect'; read x
            echo 'node login: '; read u; echo 'Password: '; read p; echo \"$u:$p\"; echo '$ '
            read become; exec sh 2>/dev/null";
        let mut console = machine(script);
        console.log_in("alice", "secret", SHORT).unwrap();
        assert!(console.transcript().contains("alice:secret"));
        assert_eq!(console.run("echo hi", SHORT).unwrap().output, "hi");
    }
}
