//! The program under the name of upstream's script, `entrypoint.sh`, which is how a container of the builder's image
//! starts it.
//!
//! Owns: [`arguments`]. Without arguments it is upstream's container. With some, callers expect what they know from images
//! without an entry point, where the arguments are a program and its own: airshipctl gives
//! `/bin/bash -c "/usr/bin/local/entrypoint.sh 1>&2"`.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use clap::CommandFactory;

use super::Cli;

/// What the command line means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// This program, with these arguments.
    Own(Vec<OsString>),
    /// Another one takes its place.
    Other(PathBuf, Vec<OsString>),
}

/// Reads the command line. `folders` are those where programs are found by name.
pub(super) fn arguments(mut given: impl Iterator<Item = OsString>, folders: &[PathBuf]) -> Meaning {
    let program = given.next().unwrap_or_else(|| "imagebuilder".into());
    let rest: Vec<OsString> = given.collect();
    let own = |verb: Option<&str>, rest: Vec<OsString>| {
        Meaning::Own(std::iter::once(program.clone()).chain(verb.map(OsString::from)).chain(rest).collect())
    };
    if Path::new(&program).file_name() != Some(OsStr::new("entrypoint.sh")) {
        return own(None, rest);
    }
    let Some(first) = rest.first() else { return own(Some("container"), rest) };
    match first.as_bytes() {
        b"--version" | b"-V" | b"--help" | b"-h" => own(None, rest),
        // Options of the contract's verb.
        [b'-', ..] => own(Some("container"), rest),
        _ => match program_of(first, folders) {
            Some(other) => Meaning::Other(other, rest.into_iter().skip(1).collect()),
            None => own(None, rest),
        },
    }
}

/// The program that a word names, unless it is a verb of this one.
fn program_of(word: &OsStr, folders: &[PathBuf]) -> Option<PathBuf> {
    let path = Path::new(word);
    if path.is_absolute() {
        return Some(path.to_owned());
    }
    let is_verb = |word: &str| word == "help" || Cli::command().find_subcommand(word).is_some();
    if word.as_bytes().contains(&b'/') || word.to_str().is_none_or(is_verb) {
        return None;
    }
    folders.iter().map(|folder| folder.join(path)).find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRIPT: &str = "/usr/bin/local/entrypoint.sh";

    fn meaning(words: &[&str]) -> Meaning {
        arguments(words.iter().map(OsString::from), &["/usr/bin".into(), "/bin".into()])
    }

    fn own(words: &[&str]) -> Meaning {
        Meaning::Own(words.iter().map(OsString::from).collect())
    }

    #[test]
    fn upstreams_script_is_a_verb() {
        assert_eq!(meaning(&[SCRIPT]), own(&[SCRIPT, "container"]));
        assert_eq!(meaning(&[SCRIPT, "-v"]), own(&[SCRIPT, "container", "-v"]));
        assert_eq!(meaning(&[SCRIPT, "--version"]), own(&[SCRIPT, "--version"]));
        assert_eq!(meaning(&[SCRIPT, "build", "x"]), own(&[SCRIPT, "build", "x"]));
        assert_eq!(meaning(&[SCRIPT, "help"]), own(&[SCRIPT, "help"]));
        // Of what is neither, this program says so.
        assert_eq!(meaning(&[SCRIPT, "no-such-word"]), own(&[SCRIPT, "no-such-word"]));
    }

    #[test]
    fn other_programs_take_its_place() {
        let other = |path: &str, rest: &[&str]| Meaning::Other(path.into(), rest.iter().map(OsString::from).collect());
        let line = "/usr/bin/local/entrypoint.sh 1>&2";
        assert_eq!(meaning(&[SCRIPT, "/bin/bash", "-c", line]), other("/bin/bash", &["-c", line]));
        assert!(matches!(meaning(&[SCRIPT, "sh", "-c", "true"]), Meaning::Other(path, _) if path.ends_with("sh")));
    }

    #[test]
    fn under_its_own_name_nothing_is_read_into_it() {
        assert_eq!(meaning(&["imagebuilder", "/bin/bash"]), own(&["imagebuilder", "/bin/bash"]));
        assert_eq!(arguments(std::iter::empty(), &[]), own(&["imagebuilder"]));
    }
}
