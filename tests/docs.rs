//! The pages for people keep up with the program: the CLI reference is generated, and what the README and the guide
//! tell people to type exists.
//!
//! `make docs` writes the generated pages again (`UPDATE_DOCS=1`).

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::CommandFactory;
use imagebuilder::cli::Cli;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every verb's `--help`, nested verbs included, at a fixed width and without colours.
fn reference() -> String {
    let mut text = String::from(
        "# Command line reference\n\nGenerated from `imagebuilder --help` by `make docs`; a test compares the two.\n",
    );
    let mut command = Cli::command().term_width(100).disable_help_subcommand(true);
    command.build();
    page(&mut command, "imagebuilder", &mut text);
    text
}

fn page(command: &mut clap::Command, name: &str, text: &mut String) {
    let help = command.render_long_help().to_string();
    let help: Vec<&str> = help.lines().map(str::trim_end).collect();
    text.push_str(&format!("\n## `{name}`\n\n```text\n{}\n```\n", help.join("\n").trim_end()));
    for verb in command.get_subcommands_mut() {
        if verb.get_name() != "help" {
            let name = format!("{name} {}", verb.get_name());
            page(verb, &name, text);
        }
    }
}

#[test]
fn the_cli_reference_is_up_to_date() {
    let path = root().join("docs/reference/cli.md");
    let wanted = reference();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &wanted).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == wanted, "docs/reference/cli.md is not what `--help` says; type `make docs`");
}

/// Lines in fenced blocks of the README and the guide, without the comments after two blanks and a `#`.
fn typed_lines() -> Vec<(String, String)> {
    let mut pages = vec![PathBuf::from("README.md")];
    for entry in std::fs::read_dir(root().join("docs/guide")).unwrap() {
        pages.push(PathBuf::from("docs/guide").join(entry.unwrap().file_name()));
    }
    let mut lines = Vec::new();
    for page in pages {
        let name = page.display().to_string();
        let mut inside = false;
        for line in read(&name).lines() {
            if line.starts_with("```") {
                inside = !inside && line.trim_end() == "```sh";
            } else if inside && !line.trim_start().starts_with('#') {
                let line = line.split("  #").next().unwrap_or_default().trim();
                lines.push((name.clone(), line.to_owned()));
            }
        }
    }
    lines
}

#[test]
fn make_targets_in_the_guide_exist() {
    let makefile = read("Makefile");
    let targets: BTreeSet<&str> = makefile
        .lines()
        .filter(|line| line.starts_with(|letter: char| letter.is_ascii_lowercase()))
        .filter_map(|line| line.split_once(':'))
        .map(|(target, _)| target)
        .collect();
    let mut checked = 0;
    for (page, line) in typed_lines() {
        let Some(rest) = line.strip_prefix("make") else { continue };
        for word in rest.split_whitespace().filter(|word| !word.contains('=')) {
            assert!(targets.contains(word), "{page}: `{line}`: the Makefile has no target `{word}`");
            checked += 1;
        }
    }
    assert!(checked >= 2, "the README names its two commands");
}

#[test]
fn commands_in_the_guide_parse() {
    let mut checked = 0;
    for (page, line) in typed_lines() {
        let words: Vec<&str> = line.split_whitespace().take_while(|word| !["|", ">", "&&"].contains(word)).collect();
        let program = words.first().copied().unwrap_or_default();
        if program == "imagebuilder" || program.ends_with("/imagebuilder") {
            // A quoted argument is one word to a shell; its quotes do not matter here.
            let joined = unquote(&words.join(" "));
            let result = Cli::command().try_get_matches_from(&joined);
            let fine = match &result {
                Ok(_) => true,
                Err(error) => !error.use_stderr(),
            };
            assert!(fine, "{page}: `{line}` does not parse: {}", result.unwrap_err());
            checked += 1;
        }
    }
    assert!(checked >= 3, "the guide shows the program");
}

/// Splits at blanks outside single quotes.
fn unquote(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    for letter in line.chars() {
        match letter {
            '\'' => quoted = !quoted,
            ' ' if !quoted => words.push(String::new()),
            letter => words.last_mut().unwrap().push(letter),
        }
    }
    words
}

#[test]
fn links_between_pages_lead_somewhere() {
    let link = regex::Regex::new(r"\]\(([^)#:]+)(#[^)]*)?\)").unwrap();
    let mut folders = vec![PathBuf::from("docs")];
    let mut pages = vec![PathBuf::from("README.md")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(root().join(&folder)).unwrap() {
            let entry = entry.unwrap();
            let path = folder.join(entry.file_name());
            if entry.path().is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                pages.push(path);
            }
        }
    }
    for page in pages {
        let text = read(&page.display().to_string());
        for found in link.captures_iter(&text) {
            let target = root().join(page.parent().unwrap()).join(&found[1]);
            assert!(target.exists(), "{}: link to {} leads nowhere", page.display(), &found[1]);
        }
    }
}
