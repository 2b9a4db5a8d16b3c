//! `validate`: everything wrong with documents, at once.

use std::fmt::Write as _;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::output;
use crate::check::documents::RULES;
use crate::check::problem::{self, ALWAYS, Problem, UNMATCHED};
use crate::check::{Severity, documents::Rule};
use crate::document::suggestion;
use crate::error::{Error, Kind, Result};
use crate::phase::validate::{self, Outcome};
use crate::report::words;

/// Tell everything that is wrong with documents, with file, line and column
///
/// Looks at sites (with every phase), entry points, or whatever of both lies below a folder, and at single files. Needs
/// neither network nor privileges, and writes nothing. Exit code 3 when there is an error; warnings alone are 0.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  imagebuilder validate manifests/site/example
  imagebuilder validate manifests functions --skip boot-both-ways
  imagebuilder validate manifests -o sarif > findings.sarif
  imagebuilder validate --list")]
pub struct Args {
    /// Folders and files with documents
    #[arg(value_name = "DIR", required_unless_present = "list")]
    pub paths: Vec<PathBuf>,

    /// How it is shown
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value = "text")]
    pub output: Format,

    /// Do not ask this rule; may be given several times
    #[arg(long, value_name = "ID")]
    pub skip: Vec<String>,

    /// Show the rules
    #[arg(long)]
    pub list: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people
    Text,
    /// One object
    Json,
    /// SARIF 2.1.0, for code hosts and editors
    Sarif,
}

pub fn run(args: &Args) -> Result<()> {
    for id in &args.skip {
        if *id != UNMATCHED && !RULES.iter().any(|rule| rule.id == *id) {
            let error = Error::new(Kind::Usage, format!("no rule is called `{id}`"));
            let ids: Vec<&str> = RULES.iter().map(|rule| rule.id).collect();
            return Err(match suggestion(id, "rules", &ids) {
                Some(hint) => error.hint(hint),
                None => error,
            });
        }
    }
    if args.list {
        return list(args.output);
    }
    let outcome = validate::validate(&args.paths, &args.skip)?;
    match args.output {
        Format::Text => output::print(&text(&outcome))?,
        Format::Json => pretty(&object(&outcome))?,
        Format::Sarif => pretty(&problem::sarif(&outcome.problems))?,
    }
    match outcome.count(Severity::Error) {
        0 => Ok(()),
        errors => Err(Error::documents(format!("{} in the documents", counted(errors, "error")))
            .hint("`imagebuilder validate --list` says of each rule why it is there and how to mend what it finds")),
    }
}

fn pretty(value: &Value) -> Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(|error| Error::build(error.to_string()))?;
    output::print(&format!("{text}\n"))
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn text(outcome: &Outcome) -> String {
    let mut text = String::new();
    for problem in &outcome.problems {
        describe(problem, &mut text);
    }
    let errors = counted(outcome.count(Severity::Error), "error");
    let warnings = counted(outcome.count(Severity::Warning), "warning");
    let images = counted(outcome.images, "image");
    let documents = counted(outcome.documents, "document");
    let _ = writeln!(text, "{documents}, {images}: {errors}, {warnings}");
    text
}

fn describe(problem: &Problem, text: &mut String) {
    let place = problem.place.as_ref().map(|place| format!("{place}: ")).unwrap_or_default();
    let _ = writeln!(text, "{}: {place}{} [{}]", problem.severity.name(), problem.message, problem.id);
    if !problem.snippet.is_empty() {
        let _ = writeln!(text, "{}", problem.snippet);
    }
    for hint in &problem.hints {
        let _ = writeln!(text, "hint: {hint}");
    }
    let _ = writeln!(text, "found in {}\n", problem.entry);
}

fn object(outcome: &Outcome) -> Value {
    json!({
        "documents": outcome.documents,
        "images": outcome.images,
        "errors": outcome.count(Severity::Error),
        "warnings": outcome.count(Severity::Warning),
        "problems": outcome.problems.iter().map(Problem::json).collect::<Vec<_>>(),
    })
}

fn list(format: Format) -> Result<()> {
    let fields = |rule: &Rule| [rule.id, rule.severity.name(), rule.title, rule.why, rule.mend];
    let always = ALWAYS.iter().map(|(id, title, why, mend)| ([*id, "error", *title, *why, *mend], *id == UNMATCHED));
    let rows: Vec<([&str; 5], bool)> = always.chain(RULES.iter().map(|rule| (fields(rule), true))).collect();
    if format == Format::Text {
        let head = ["ID", "SEVERITY", "WHAT HAS TO HOLD"].map(str::to_owned).to_vec();
        let cells = rows.iter().map(|(row, _)| row[..3].iter().map(|cell| (*cell).to_owned()).collect());
        return output::print(&words::table(&std::iter::once(head).chain(cells).collect::<Vec<_>>()));
    }
    let object = |(row, skippable): &([&str; 5], bool)| json!({"id": row[0], "severity": row[1], "title": row[2], "why": row[3], "mend": row[4], "skippable": skippable});
    pretty(&rows.iter().map(object).collect())
}
