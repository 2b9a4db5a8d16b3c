//! Mistakes in the shipped documents: each of more than a hundred copies has one line broken in one way, and `validate`
//! must put an error on that very line.
//!
//! The lines are chosen by a fixed rule from all lines that a kind of mistake fits. `MUTATIONS_SHOW=1` prints each.

// The score is what a test run tells.
#![allow(clippy::print_stdout)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use imagebuilder::check::Severity;
use imagebuilder::phase::validate::validate;

const TOPS: [&str; 3] = ["functions", "manifests", "config"];
/// Of each kind of mistake.
const EACH: usize = 10;
const WANTED: usize = 95;

/// What may go wrong with a line: the new text of the line, and which of the lines it becomes is the wrong one.
type Mistake = fn(&Line<'_>) -> Option<(String, usize)>;

struct Line<'a> {
    file: &'a str,
    text: &'a str,
    next: &'a str,
    previous: &'a str,
    /// Keys of the mappings around the line, outermost first.
    around: Vec<&'a str>,
}

impl<'a> Line<'a> {
    fn indent(&self) -> usize {
        self.text.len() - self.text.trim_start_matches(' ').len()
    }

    /// `key` and `value` of a line that says nothing else.
    fn pair(&self) -> Option<(&'a str, &'a str)> {
        let (key, value) = self.text.trim_start().split_once(':')?;
        let plain = key.starts_with(|c: char| c.is_ascii_alphabetic())
            && key.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c));
        (plain && (value.is_empty() || value.starts_with(' '))).then(|| (key, value.trim()))
    }

    fn kustomization(&self) -> bool {
        self.file.ends_with("kustomization.yaml")
    }

    /// Of documents with a schema.
    fn typed(&self) -> bool {
        !self.kustomization() && !self.file.starts_with("config")
    }

    fn key_end(&self) -> usize {
        self.text.find(':').unwrap_or(self.text.len())
    }
}

/// A name that belongs to a structure, not to a set whose names people make up.
fn is_field(line: &Line<'_>) -> bool {
    const FIELDS: [&str; 26] = [
        "spec",
        "metadata",
        "software",
        "kernel",
        "networking",
        "storage",
        "users",
        "systemd",
        "limits",
        "packages",
        "repositories",
        "distribution",
        "sysctl",
        "modules",
        "commandLine",
        "release",
        "architecture",
        "keyring",
        "source",
        "suite",
        "components",
        "config",
        "documentEntryPoint",
        "executorRef",
        "nodeProfile",
        "outputFileName",
    ];
    line.pair().is_some_and(|(key, _)| FIELDS.contains(&key)) && line.typed()
}

fn wrong_field(line: &Line<'_>) -> Option<(String, usize)> {
    let at = line.key_end();
    is_field(line).then(|| (format!("{}zz{}", &line.text[..at], &line.text[at..]), 0))
}

fn wrong_kustomization_field(line: &Line<'_>) -> Option<(String, usize)> {
    let (key, _) = line.pair()?;
    let known = line.kustomization() && line.indent() == 0 && key != "apiVersion" && key != "kind";
    let at = line.key_end();
    known.then(|| (format!("{}zz{}", &line.text[..at], &line.text[at..]), 0))
}

fn wrong_type(line: &Line<'_>) -> Option<(String, usize)> {
    let (key, value) = line.pair()?;
    let scalar = !value.is_empty() && value.chars().all(|c| c.is_ascii_alphanumeric() || ".-_/ ".contains(c));
    let top = ["apiVersion", "kind"].contains(&key) || line.around.contains(&"metadata");
    (scalar && line.typed() && !top).then(|| (format!("{}: {{a: [b]}}", &line.text[..line.key_end()]), 0))
}

fn list_for_mapping(line: &Line<'_>) -> Option<(String, usize)> {
    let (key, value) = line.pair()?;
    (is_field(line) && value.starts_with('{') && value.ends_with('}') && key != "metadata")
        .then(|| (format!("{}: [a, b]", &line.text[..line.key_end()]), 0))
}

fn duplicate_key(line: &Line<'_>) -> Option<(String, usize)> {
    let (_, value) = line.pair()?;
    let whole = !value.is_empty() && !value.starts_with(['|', '>', '&']) && !line.kustomization();
    let ends = line.next.len() - line.next.trim_start_matches(' ').len() <= line.indent();
    (whole && ends).then(|| (format!("{}\n{}", line.text, line.text), 1))
}

fn bad_indent(line: &Line<'_>) -> Option<(String, usize)> {
    let (_, value) = line.pair()?;
    let sibling = |text: &str| text.len() - text.trim_start_matches(' ').len() == line.indent();
    let after_pair = line.previous.contains(": ") && !line.previous.contains(": {}") && sibling(line.previous);
    (!value.is_empty() && after_pair && sibling(line.next) && !line.previous.trim_start().starts_with(['#', '-']))
        .then(|| (format!(" {}", line.text), 0))
}

fn tab(line: &Line<'_>) -> Option<(String, usize)> {
    line.pair()?;
    (line.indent() >= 2).then(|| (format!("\t{}", line.text.trim_start()), 0))
}

fn open_quote(line: &Line<'_>) -> Option<(String, usize)> {
    let (_, value) = line.pair()?;
    (!value.is_empty() && value.chars().all(|c| c.is_ascii_alphanumeric() || ".-_/".contains(c)))
        .then(|| (format!("{}: \"{value}", &line.text[..line.key_end()]), 0))
}

fn open_bracket(line: &Line<'_>) -> Option<(String, usize)> {
    let (_, value) = line.pair()?;
    (value.starts_with('{') && value.ends_with('}') && value != "{}" && value.matches('}').count() == 1)
        .then(|| (line.text.trim_end_matches('}').to_owned(), 0))
}

fn dangling_reference(line: &Line<'_>) -> Option<(String, usize)> {
    let entry = line.text.trim_start().strip_prefix("- ")?;
    let path = entry.strip_prefix("path: ").unwrap_or(entry);
    let named = path.ends_with(".yaml") || path.starts_with("../");
    (line.kustomization() && named).then(|| (format!("{}-gone", line.text), 0))
}

fn not_utf8(line: &Line<'_>) -> Option<(String, usize)> {
    line.pair()?;
    // Stands for a byte that is no text, put in when the file is written.
    (line.text.len() > 6).then(|| (format!("{}\u{1a}", line.text), 0))
}

fn not_printable(line: &Line<'_>) -> Option<(String, usize)> {
    let (_, value) = line.pair()?;
    (!value.is_empty()).then(|| (format!("{}: \"a\0b\"", &line.text[..line.key_end()]), 0))
}

fn missing_colon(line: &Line<'_>) -> Option<(String, usize)> {
    let (key, value) = line.pair()?;
    let previous = line.previous.trim();
    let within = previous.ends_with(':') || previous.contains(": ");
    (!value.is_empty() && within && !value.starts_with(['|', '{', '[']) && line.indent() > 0)
        .then(|| (format!("{}{key} {value}", " ".repeat(line.indent())), 0))
}

fn unknown_alias(line: &Line<'_>) -> Option<(String, usize)> {
    let (_, value) = line.pair()?;
    (!value.is_empty()).then(|| (format!("{}: *nobody", &line.text[..line.key_end()]), 0))
}

const MISTAKES: [(&str, Mistake); 14] = [
    ("wrong field", wrong_field),
    ("wrong field of a kustomization", wrong_kustomization_field),
    ("wrong type", wrong_type),
    ("list for a mapping", list_for_mapping),
    ("duplicate key", duplicate_key),
    ("bad indent", bad_indent),
    ("tab", tab),
    ("open quote", open_quote),
    ("open bracket", open_bracket),
    ("dangling reference", dangling_reference),
    ("not UTF-8", not_utf8),
    ("NUL", not_printable),
    ("missing colon", missing_colon),
    ("unknown alias", unknown_alias),
];

fn yaml_files(folder: &Path, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> = fs::read_dir(folder).expect("a folder").flatten().map(|e| e.path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            // Generated, and no documents of people.
            if !path.ends_with("crds") {
                yaml_files(&path, found);
            }
        } else if path.extension().is_some_and(|end| end == "yaml") {
            found.push(path);
        }
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder").flatten() {
        let target = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).expect("a copy")),
        }
    }
}

/// One broken line: file, number from 1, new content of the file.
struct Mutant {
    what: &'static str,
    file: String,
    line: usize,
    text: Vec<u8>,
}

fn mutants(root: &Path) -> Vec<Mutant> {
    let mut files = Vec::new();
    TOPS.iter().for_each(|top| yaml_files(&root.join(top), &mut files));
    let texts: Vec<(String, String)> = files
        .iter()
        .map(|path| (path.strip_prefix(root).unwrap().display().to_string(), fs::read_to_string(path).unwrap()))
        .collect();
    let mut all = Vec::new();
    for (what, mistake) in MISTAKES {
        let fitting: Vec<Mutant> = texts.iter().flat_map(|(file, text)| of_file(what, mistake, file, text)).collect();
        let count = fitting.len();
        // Spread over everything that fits.
        let step = (count / EACH).max(1);
        all.extend(fitting.into_iter().step_by(step).take(EACH));
    }
    all
}

fn of_file(what: &'static str, mistake: Mistake, file: &str, text: &str) -> Vec<Mutant> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    // Texts in blocks are no documents.
    let mut block: Option<usize> = None;
    let mut around: Vec<(usize, &str)> = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let indent = line.len() - line.trim_start_matches(' ').len();
        if block.is_some_and(|outer| line.trim().is_empty() || indent > outer) {
            continue;
        }
        block = None;
        around.retain(|(outer, _)| *outer < indent);
        let comment = line.trim_start().starts_with('#');
        let here = Line {
            file,
            text: line,
            next: lines.get(at + 1).unwrap_or(&""),
            previous: if at == 0 { "" } else { lines[at - 1] },
            around: around.iter().map(|(_, key)| *key).collect(),
        };
        if let (false, Some((new, offset))) = (comment, mistake(&here)) {
            let mut changed: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
            changed[at] = new;
            let mut bytes = (changed.join("\n") + "\n").into_bytes();
            bytes.iter_mut().filter(|byte| **byte == 0x1a).for_each(|byte| *byte = 0xff);
            found.push(Mutant { what, file: file.to_owned(), line: at + 1 + offset, text: bytes });
        }
        if let Some((key, _)) = here.pair() {
            around.push((indent, key));
        }
        if [": |", ": |-", ": |+", ": >", ": >-"].iter().any(|mark| line.trim_end().ends_with(mark)) {
            block = Some(indent);
        }
    }
    found
}

#[test]
fn errors_point_at_the_broken_line() {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path();
    TOPS.iter().for_each(|top| copy(&repository.join(top), &root.join(top)));
    let paths: Vec<PathBuf> = TOPS.iter().map(|top| root.join(top)).collect();
    let clean = validate(&paths, &[]).expect("documents are looked at");
    assert_eq!(clean.count(Severity::Error), 0, "the shipped documents are right: {:?}", clean.problems);
    let show = std::env::var_os("MUTATIONS_SHOW").is_some();
    let (mut right, mut missed, mut count) = (BTreeMap::<&str, (usize, usize)>::new(), Vec::new(), 0);
    for mutant in mutants(root) {
        let path = root.join(&mutant.file);
        let before = fs::read(&path).expect("a file");
        fs::write(&path, &mutant.text).expect("a file is written");
        let outcome = validate(&paths, &[]).expect("documents are looked at");
        fs::write(&path, before).expect("a file is written");
        let errors: Vec<_> = outcome.problems.iter().filter(|problem| problem.severity == Severity::Error).collect();
        let wanted = format!("{}:{}:", path.display(), mutant.line);
        let told = |problem: &&imagebuilder::check::problem::Problem| {
            let place = problem.place.as_ref().map(|place| format!("{place}: ")).unwrap_or_default();
            format!("{place}{}", problem.message)
        };
        let first = errors.first().map(told).unwrap_or_else(|| "no error".into());
        let hit = errors.iter().any(|problem| told(problem).starts_with(&wanted));
        let score = right.entry(mutant.what).or_default();
        *score = (score.0 + usize::from(hit), score.1 + 1);
        count += 1;
        let line = format!("{}: {}:{}: {first}", mutant.what, mutant.file, mutant.line);
        if show {
            println!("{} {line}", if hit { "yes" } else { "NO " });
        }
        if !hit {
            missed.push(line);
        }
    }
    let found: usize = right.values().map(|(right, _)| right).sum();
    for (what, (right, all)) in &right {
        println!("{what:32} {right:3} of {all:3}");
    }
    println!("{found} of {count} errors point at the broken line");
    assert!(count >= 100, "only {count} mutants");
    assert!(found * 100 >= WANTED * count, "{found} of {count}:\n{}", missed.join("\n"));
}
