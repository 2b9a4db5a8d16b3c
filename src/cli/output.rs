//! Results on standard output.
//!
//! Owns: [`print`] and [`rows`], the one way lists are shown. A reader that goes away (`| head`) ends the program
//! quietly, as it does every Unix filter.

use std::io::{ErrorKind, Write};

use serde_json::Value;

use crate::document;
use crate::error::{Context, Error, Result};
use crate::report::words;

/// `-o` of every verb that lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    Table,
    Yaml,
    Json,
}

pub fn print(text: &str) -> Result<()> {
    let mut out = anstream::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // The code a shell shows for a program that SIGPIPE ended.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(128 + libc::SIGPIPE),
        result => result.context("writing to standard output"),
    }
}

/// A list: aligned columns for people, or a list of objects.
pub fn rows<T>(
    format: Format,
    columns: &[&str],
    rows: &[T],
    cells: impl Fn(&T) -> Vec<String>,
    object: impl Fn(&T) -> Value,
) -> Result<()> {
    match format {
        Format::Table => {
            let head = columns.iter().map(|column| (*column).to_owned()).collect();
            print(&words::table(&std::iter::once(head).chain(rows.iter().map(cells)).collect::<Vec<_>>()))
        }
        // JSON is a part of YAML.
        Format::Yaml => print(&document::to_yaml(&document::load_str("output", &list(rows, object).to_string())?)),
        Format::Json => {
            let text = serde_json::to_string_pretty(&list(rows, object));
            print(&format!("{}\n", text.map_err(|error| Error::build(error.to_string()))?))
        }
    }
}

fn list<T>(rows: &[T], object: impl Fn(&T) -> Value) -> Value {
    Value::Array(rows.iter().map(object).collect())
}
