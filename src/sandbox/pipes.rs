//! Questions from scripts in a sandbox to this program: two named pipes in a folder that the job sees.
//!
//! Owns: [`Pipes`], the form of a question, and [`Asker`], which ends the talk. A shell asks with a builtin and waits for
//! the answer, so nothing is started and everything happens in the order of the script. A question is the number of its
//! fields and the fields, each ended by a unit separator (octal 037), which no file name here has. It must come from one
//! script at a time.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use rustix::fs::Mode;

use crate::error::{Context, Result};

/// Octal 037.
const SEPARATOR: u8 = 0x1F;
/// `PATH_MAX` for each of the few fields there are.
const FIELD_BYTES: usize = 4096;
const FIELDS: usize = 32;

/// The side that answers.
pub struct Pipes {
    questions: File,
    answers: File,
    buffer: Vec<u8>,
}

/// Whoever can end the talk.
pub struct Asker {
    ask: PathBuf,
}

/// A named pipe, opened in both directions: whoever opens the other end never waits, and the pipe never ends.
pub fn named_pipe(path: &Path) -> Result<File> {
    let making = || format!("making pipe {}", path.display());
    rustix::fs::mkfifoat(rustix::fs::CWD, path, Mode::from_raw_mode(0o600)).with_context(making)?;
    OpenOptions::new().read(true).write(true).open(path).with_context(making)
}

impl Pipes {
    /// Makes `ask` and `answer` in a folder.
    pub fn make(folder: &Path) -> Result<(Pipes, Asker)> {
        let ask = folder.join("ask");
        let pipes =
            Pipes { questions: named_pipe(&ask)?, answers: named_pipe(&folder.join("answer"))?, buffer: Vec::new() };
        Ok((pipes, Asker { ask }))
    }

    /// The next question; `None` when the talk is over. What makes no sense comes out as a question without fields.
    pub fn question(&mut self) -> Option<Vec<Vec<u8>>> {
        let count = self.field()?;
        let count = std::str::from_utf8(&count).ok().and_then(|text| text.parse::<usize>().ok());
        let Some(count) = count.filter(|count| *count <= FIELDS) else {
            self.buffer.clear();
            return Some(Vec::new());
        };
        let fields: Vec<Vec<u8>> = (0..count).map(|_| self.field()).collect::<Option<_>>()?;
        match fields.first() {
            Some(verb) if verb == b"quit" => None,
            _ => Some(fields),
        }
    }

    /// To be called once for every question, with lines.
    pub fn answer(&mut self, text: &[u8]) {
        if let Err(error) = self.answers.write_all(text) {
            tracing::warn!("answering a script: {error}");
        }
    }

    fn field(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == SEPARATOR) {
                let field = self.buffer[..end].to_vec();
                self.buffer.drain(..=end);
                return Some(field);
            }
            if self.buffer.len() > FIELD_BYTES {
                self.buffer.clear();
            }
            let mut chunk = [0; 4096];
            match self.questions.read(&mut chunk) {
                Ok(length) => self.buffer.extend_from_slice(&chunk[..length]),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(_) => return None,
            }
        }
    }
}

impl Asker {
    /// To be called when no script runs any more; false if that was not possible. The answering side holds the pipe open,
    /// so this neither waits nor fails while there is somebody to stop.
    pub fn quit(&self) -> bool {
        let told = OpenOptions::new().write(true).open(&self.ask).and_then(|mut pipe| pipe.write_all(b"1\x1Fquit\x1F"));
        told.is_ok()
    }
}
