//! `origin`: where a value came from, and everything that changed it since.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::Globals;
use super::output::{self, Format};
use crate::document::{self, Node, Position, Step, ValuePath, leaves, steps, steps_json, to_json};
use crate::error::{Error, Kind, Result};
use crate::kustomize::{self, find_object, object_name};
use crate::report::words;

/// Show where a value came from: the line that defined it, and every overlay entry that changed it since
///
/// VALUE is KIND/NAME:path, the path as in `explain`: dots, brackets for keys with dots, numbers or `name=x` for list
/// elements. Without a path: every value of the object. A path to more than one value shows all below it. What is printed
/// first came first. An object or a path that is not there ends with exit code 3 and the nearest that are.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  imagebuilder origin manifests/site/example/target/data-plane/image 'AirshipImage/data-plane:spec.params.kernel.sysctl[\"vm.swappiness\"]'
  imagebuilder origin manifests/site/example/target/data-plane/image AirshipImage/data-plane:spec.params.storage
  imagebuilder origin manifests/site/example/phases Phase/build-qcow-data-plane -o json")]
pub struct Args {
    /// A folder with a `kustomization.yaml`
    pub dir: PathBuf,

    /// Which value
    #[arg(value_name = "KIND/NAME[:PATH]")]
    pub value: String,

    /// How it is shown
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value = "table")]
    pub output: Format,
}

pub fn run(args: &Args, globals: &Globals) -> Result<()> {
    let (object, path) = split(&args.value)?;
    let options = kustomize::Options { reporter: Some(globals.reporter()), ..kustomize::Options::default() };
    let documents = kustomize::build(&args.dir, &options)?;
    let document = find_object(&documents, object)?;
    let (path, value) = match path {
        Some(path) => ValuePath::parse(path)?.find(document)?,
        None => (String::new(), document),
    };
    let name = object_name(document);
    let mut values = leaves(&path, value);
    // A value that is one, and a collection that something put there as a whole, are told of themselves.
    if value.as_scalar().is_none() && !path.is_empty() && !values.iter().any(|(_, leaf)| std::ptr::eq(*leaf, value)) {
        values.insert(0, (path, value));
    }
    match args.output {
        Format::Table => output::print(&text(&name, &values)),
        Format::Yaml => {
            output::print(&document::to_yaml(&document::load_str("output", &object_of(&name, &values).to_string())?))
        }
        Format::Json => {
            let text = serde_json::to_string_pretty(&object_of(&name, &values));
            output::print(&format!("{}\n", text.map_err(|error| Error::build(error.to_string()))?))
        }
    }
}

/// `KIND/NAME:path`; the name has no colon, unless it is followed by nothing that could be a path.
fn split(value: &str) -> Result<(&str, Option<&str>)> {
    match value.split_once(':') {
        None => Ok((value, None)),
        Some((_, "")) => Err(Error::new(Kind::Usage, format!("`{value}` ends where a path should begin"))
            .hint("write KIND/NAME:path, as in `AirshipImage/data-plane:spec.params.kernel`")),
        Some((object, path)) => Ok((object, Some(path))),
    }
}

fn text(name: &str, values: &[(String, &Node)]) -> String {
    let one = |(path, value): &(String, &Node)| {
        let rows: Vec<Vec<String>> = steps(&value.origin).iter().map(|step| row(step, value)).collect();
        let head = match value.text() {
            Some(text) => format!("{name}:{path} = {}", short(text)),
            None => format!("{name}:{path} ({})", value.describe()),
        };
        let table = words::table(&rows);
        let lines: Vec<String> = table.lines().map(|line| format!("  {line}\n")).collect();
        format!("{head}\n{}", lines.concat())
    };
    values.iter().map(one).collect::<Vec<_>>().join("\n")
}

/// What happened, where, in which overlay, and the value that came of it.
fn row(step: &Step<'_>, node: &Node) -> Vec<String> {
    // The place of a collection is that of its first line, which says nothing of the rest.
    let quoted = |at: &Position| node.as_scalar().map(|_| short(at.text())).unwrap_or_default();
    let overlay = step.at.overlay().map(|folder| format!("overlay {folder}")).unwrap_or_default();
    let value = match (step.action, step.value) {
        ("defined", _) => quoted(step.at),
        (_, Some(value)) => format!("{} ({value})", quoted(value)).trim_start().to_owned(),
        (_, None) => String::new(),
    };
    vec![step.action.to_owned(), step.at.to_string(), overlay, value]
}

/// The first line, not too much of it.
fn short(text: &str) -> String {
    const LONGEST: usize = 60;
    let line = text.lines().next().unwrap_or_default();
    match line.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{} ...", &line[..end]),
        None if text.trim_end().contains('\n') => format!("{line} ..."),
        None => line.to_owned(),
    }
}

fn object_of(name: &str, values: &[(String, &Node)]) -> Value {
    let value = |(path, value): &(String, &Node)| json!({"path": path, "value": to_json(value), "chain": steps_json(&value.origin)});
    json!({"object": name, "values": values.iter().map(value).collect::<Vec<_>>()})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_argument_is_an_object_and_maybe_a_path() {
        assert_eq!(split("A/b:spec.x[\"a:b\"]").unwrap(), ("A/b", Some("spec.x[\"a:b\"]")));
        assert_eq!(split("A/b").unwrap(), ("A/b", None));
        assert_eq!(split("A/b:").unwrap_err().kind().exit_code(), 2);
    }

    #[test]
    fn long_values_are_cut() {
        assert_eq!(short("a\nb"), "a ...");
        assert_eq!(short("a\n"), "a");
        assert!(short(&"ä".repeat(100)).ends_with("ä ..."));
    }
}
