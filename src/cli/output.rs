//! Results on standard output.
//!
//! Owns: [`print`]. A reader that goes away (`| head`) ends the program quietly, as it does every Unix filter.

use std::io::{ErrorKind, Write};

use crate::error::{Context, Result};

pub fn print(text: &str) -> Result<()> {
    let mut out = anstream::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // The code a shell shows for a program that SIGPIPE ended.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(128 + libc::SIGPIPE),
        result => result.context("writing to standard output"),
    }
}
