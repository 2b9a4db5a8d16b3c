//! Parts of scripts that do nothing in a first installation, found by their text, and not run.
//!
//! Owns: [`guard`], [`does_nothing`] and [`loops`]. `dpkg-maintscript-helper` (its manual page, and its program) changes
//! something only on an upgrade, or where an upgrade has left something: each of its calls is three processes. Two loops
//! start a `grep` for each line of a list. Each edit is a condition in front of what stands there, so what is not as
//! expected runs as ever.

/// Verbs of the helper that do nothing without an earlier version.
const UPGRADES: [&str; 2] = ["rm_conffile", "mv_conffile"];
/// Those that look for what an upgrade has left, too: in `preinst` they do nothing without an earlier version.
const REPLACED: [&str; 2] = ["symlink_to_dir", "dir_to_symlink"];

/// Name of the program of [`loops`] in our folder.
pub(super) const LOCALES: &str = "missing-locales";
/// Adds to a list of locales those of its standard input that are not there: as the loop of the package `locales`, which
/// asks `grep` for `^[# ]*NAME *$`. Fails before it writes anything where that could mean something else.
pub(super) const LOCALES_PROGRAM: &str = r##"#!/usr/bin/perl
use strict;
exit 1 unless @ARGV == 1;
my ($path) = @ARGV;
local $/;
open(my $list, '<', $path) or exit 1;
my $text = <$list> // '';
exit 1 if $text =~ /[^\t\n -~]/ or $text =~ /[^\n]\z/;
my @names = split(/\n/, <STDIN> // '');
for my $name (@names) {
	exit 1 unless $name =~ /\A[A-Za-z0-9][A-Za-z0-9_.@ -]*[A-Za-z0-9]\z/;
}
my $added = '';
for my $name (@names) {
	next if $text =~ /^[# ]*$name *$/m;
	$text .= "# $name\n";
	$added .= "# $name\n";
}
open(my $end, '>>', $path) or exit 1;
print $end $added;
close($end) or die "writing $path: $!\n";
"##;

const LOCALES_LOOP: &str = r##"        echo "$SUPPORTED_LOCALES" | while read locale ; do
           if ! grep -q "^[# ]*$locale *\$" $LG; then 
             echo "# $locale" >> $LG
           fi
        done
"##;
/// Lines that ask whether a certificate is in a list, each in a loop over all of them: in an empty list it is not.
const CERTIFICATES: [(&str, &str); 2] = [
    (
        r#"   if (echo "$CERTS_DISABLED" | grep -F -q -x "$crt") > /dev/null 2>&1; then"#,
        r#"   if [ -n "$CERTS_DISABLED" ] && (echo "$CERTS_DISABLED" | grep -F -q -x "$crt") > /dev/null 2>&1; then"#,
    ),
    (
        r#"   elif (echo "$CERTS_TRUST" | grep -F -q -x "$crt") > /dev/null 2>&1; then"#,
        r#"   elif [ -n "$CERTS_TRUST" ] && (echo "$CERTS_TRUST" | grep -F -q -x "$crt") > /dev/null 2>&1; then"#,
    ),
];

/// The script (by the name of its file) with its slow loops replaced; nothing if it has none.
pub(super) fn loops(file: &str, text: &str) -> Option<String> {
    let once = |part: &str| text.matches(part).count() == 1;
    match file {
        "locales.postinst" if once(LOCALES_LOOP) => {
            let first = format!("        echo \"$SUPPORTED_LOCALES\" | /{}/{LOCALES} $LG ||\n", super::FOLDER);
            Some(text.replace(LOCALES_LOOP, &format!("{first}{LOCALES_LOOP}")))
        }
        "ca-certificates.config" if once("  for crt in $crts\n") && CERTIFICATES.iter().all(|(line, _)| once(line)) => {
            Some(CERTIFICATES.iter().fold(text.to_owned(), |text, (line, ours)| text.replace(line, ours)))
        }
        _ => None,
    }
}

/// Whether the script is one whose lines can be looked at one by one: for the shell, and without lines that are data.
fn in_lines(text: &str) -> bool {
    let Some(shell) = text.lines().next().and_then(|line| line.strip_prefix("#!")) else { return false };
    matches!(shell.trim(), "/bin/sh" | "/bin/sh -e" | "/bin/bash" | "/bin/bash -e" | "/bin/dash")
        && !text.contains("<<")
        && text.lines().all(closes_quotes)
}

/// Whether all that is quoted in a line ends in it.
fn closes_quotes(line: &str) -> bool {
    let mut bytes = line.bytes();
    let (mut open, mut before) = (None, b' ');
    while let Some(byte) = bytes.next() {
        match (open, byte) {
            (None, b'#') if before.is_ascii_whitespace() => return true,
            (None | Some(b'"'), b'\\') => drop(bytes.next()),
            (None, b'"' | b'\'') => open = Some(byte),
            (Some(quote), _) if quote == byte => open = None,
            _ => {}
        }
        before = byte;
    }
    open.is_none()
}

/// A call of the helper that stands for itself: its verb and the path that it is about.
fn call(line: &str) -> Option<(&str, &str)> {
    let words = line.trim().strip_prefix("dpkg-maintscript-helper ")?.strip_suffix(" -- \"$@\"")?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/.+_~:@-".contains(&byte);
    let escaped = words.replace("\\~", "~").replace("\\+", "+");
    if !escaped.bytes().all(|byte| plain(byte) || byte == b' ') {
        return None;
    }
    let words: Vec<&str> = words.split(' ').collect();
    let (verb, path) = match words.as_slice() {
        [verb @ "rm_conffile", path, _version] | [verb @ "rm_conffile", path, _version, _] => (*verb, *path),
        [verb, path, _, _version] | [verb, path, _, _version, _] => (*verb, *path),
        _ => return None,
    };
    let known = UPGRADES.contains(&verb) || REPLACED.contains(&verb);
    (known && path.starts_with('/') && !path.ends_with('/') && !path.contains('\\')).then_some((verb, path))
}

/// Whether the line after this one begins a statement.
fn ends_statement(line: &str) -> bool {
    let line = line.trim();
    line.starts_with('#') || !line.ends_with(['\\', '|', '&', '(', '`'])
}

/// The script with a condition before each call of the helper that does nothing in a first installation: `$2`, the version
/// that was configured before, is empty then. Nothing if it has none.
pub(super) fn guard(text: &str) -> Option<String> {
    if !in_lines(text) {
        return None;
    }
    let mut begins = true;
    let mut found = false;
    let edited = text.split_inclusive('\n').map(|line| {
        let call = call(line).filter(|_| begins);
        // A statement goes on behind empty lines and comments.
        if !matches!(line.trim_start().bytes().next(), None | Some(b'#')) {
            begins = ends_statement(line);
        }
        let Some((verb, path)) = call else { return line.to_owned() };
        found = true;
        let left = match REPLACED.contains(&verb) {
            true => format!(" && [ ! -e {path}.dpkg-backup ] && [ ! -h {path}.dpkg-backup ]"),
            false => String::new(),
        };
        format!("{{ [ -z \"${{2-}}\" ]{left}; }} || {}", line.trim_start())
    });
    let edited: String = edited.collect();
    found.then_some(edited)
}

/// Whether `preinst install`, without an earlier version, does nothing at all: calls of the helper, and blocks whose
/// condition asks for an upgrade.
pub(in crate::package) fn does_nothing(text: &str) -> bool {
    if !in_lines(text) {
        return false;
    }
    let mut inside = false;
    for line in text.lines().skip(1) {
        if !ends_statement(line) {
            return false;
        }
        let statement = line.trim();
        if inside {
            // The end of the block is its own: nothing in it has an end, too.
            match statement {
                "fi" => inside = false,
                _ if statement.starts_with("if ") || statement.starts_with("el") => return false,
                _ => {}
            }
            continue;
        }
        let plain = matches!(statement, "" | "set -e" | "exit 0") || statement.starts_with('#');
        if only_on_upgrade(statement) {
            inside = true;
        } else if !plain && call(statement).is_none() {
            return false;
        } else if statement == "exit 0" {
            return true;
        }
    }
    !inside
}

/// `if TEST && TEST ; then`, one of them false in a first installation.
fn only_on_upgrade(statement: &str) -> bool {
    let condition = statement.strip_prefix("if ").and_then(|rest| rest.strip_suffix("then"));
    let Some(condition) = condition.and_then(|rest| rest.trim_end().strip_suffix(';')) else { return false };
    let tests: Vec<&str> = condition.split("&&").map(str::trim).collect();
    let is_test = |test: &&str| {
        let inner = test.strip_prefix("[ ").and_then(|rest| rest.strip_suffix(" ]"));
        inner.is_some_and(|inner| !inner.contains(['`', '|', ';', '(', '[', ']', '<', '>']))
    };
    const FALSE: [&str; 3] = ["[ -n \"$2\" ]", "[ \"$1\" = upgrade ]", "[ \"$1\" = \"upgrade\" ]"];
    tests.iter().all(is_test) && tests.iter().any(|test| FALSE.contains(test))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    const CALLS: &str = "#!/bin/sh\nset -e\ndpkg-maintscript-helper rm_conffile /etc/a 1.0\\~ -- \"$@\"\n\
        if true; then\n\tdpkg-maintscript-helper dir_to_symlink ROOT/b ../c 2-1\\+x pkg -- \"$@\"\nfi\n";

    /// What the edited script calls the helper with.
    fn run(text: &str, arguments: &[&str]) -> String {
        let text = text.replace("dpkg-maintscript-helper", "echo");
        let output = Command::new("sh").args(["-c", &text, "script"]).args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn the_helper_is_called_where_it_has_something_to_do() {
        let place = tempfile::tempdir().unwrap();
        let text = CALLS.replace("ROOT", &place.path().display().to_string());
        let edited = guard(&text).unwrap();
        assert_eq!(run(&edited, &["configure", ""]), "");
        assert_eq!(run(&edited, &["install"]), "");
        let all = run(&text, &["configure", "1.0"]);
        assert_eq!(all.lines().count(), 2);
        assert_eq!(run(&edited, &["configure", "1.0"]), all);
        std::fs::create_dir(place.path().join("b.dpkg-backup")).unwrap();
        assert_eq!(run(&edited, &["configure", ""]).lines().count(), 1);
        std::fs::remove_dir(place.path().join("b.dpkg-backup")).unwrap();
        std::os::unix::fs::symlink("nowhere", place.path().join("b.dpkg-backup")).unwrap();
        assert_eq!(run(&edited, &["configure", ""]).lines().count(), 1);
    }

    #[test]
    fn what_is_no_statement_of_its_own_stays() {
        for text in [
            "#!/bin/sh\ntrue && \\\ndpkg-maintscript-helper rm_conffile /etc/a 1 -- \"$@\"\n",
            "#!/bin/sh\nfalse &&\n\n# x\ndpkg-maintscript-helper rm_conffile /etc/a 1 -- \"$@\"\n",
            "#!/bin/sh\necho \"it's\ndpkg-maintscript-helper rm_conffile /etc/a 1 -- \"$@\"\n\"\n",
            "#!/bin/sh\ncat <<EOF\ndpkg-maintscript-helper rm_conffile /etc/a 1 -- \"$@\"\nEOF\n",
            "#!/usr/bin/perl\ndpkg-maintscript-helper rm_conffile /etc/a 1 -- \"$@\"\n",
            "#!/bin/sh\ndpkg-maintscript-helper rm_conffile $a 1 -- \"$@\"\n",
            "#!/bin/sh\ndpkg-maintscript-helper rm_conffile /etc/a 1 -- \"$@\" || true\n",
            "#!/bin/sh\ndpkg-maintscript-helper supports rm_conffile\n",
            "#!/bin/sh\ndpkg-maintscript-helper other /etc/a b 1 -- \"$@\"\n",
        ] {
            assert_eq!(guard(text), None, "{text}");
            assert!(!does_nothing(text), "{text}");
        }
    }

    #[test]
    fn preinst_scripts_that_do_nothing_are_known() {
        let chmod = "if [ \"$1\" = \"install\" ] && [ -n \"$2\" ] && [ -e \"/etc/init.d/x\" ] ; then\n\tchmod +x y || true\nfi\n";
        let stop =
            "if [ -z \"${DPKG_ROOT:-}\" ] && [ \"$1\" = upgrade ] && [ -d /run/systemd/system ] ; then\n\tstop\nfi\n";
        assert!(does_nothing(&CALLS.replace("if true; then\n", "").replace("fi\n", "").replace("ROOT", "")));
        assert!(does_nothing(&format!("#! /bin/sh\n\nset -e\n# all\n{chmod}{stop}exit 0\nother\n")));
        for other in [
            "other\n",
            "set -eu\n",
            "if [ -n \"$2\" ] || true; then\nfi\n",
            "if [ -n \"$2\" ] && true; then\nfi\n",
            "if [ -n \"$2\" ]; then\nx\nelse\ny\nfi\n",
            "if [ -n \"$2\" ]; then\nif x; then\ny\nfi\nfi\n",
            "if [ -n \"$2\" ]; then\nx\n",
            "if [ -n \"$2\" -o $(x) ]; then\nfi\n",
            "if [ \"$1\" = install ]; then\nx\nfi\n",
            "true \\\n",
        ] {
            assert!(!does_nothing(&format!("#!/bin/sh\n{other}")), "{other}");
        }
    }

    #[test]
    fn locales_are_added_as_by_the_loop() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join(LOCALES);
        std::fs::write(&program, LOCALES_PROGRAM).unwrap();
        let text = format!("LG=$1\nSUPPORTED_LOCALES=$(cat $2)\n{LOCALES_LOOP}");
        let edited = loops("locales.postinst", &text).unwrap();
        assert_eq!(loops("other.postinst", &text), None);
        let edited =
            edited.replace(&format!("/{}/", super::super::FOLDER), &format!("perl {}/", folder.path().display()));
        let (list, names) = (folder.path().join("list"), folder.path().join("names"));
        for (there, asked) in [
            (
                "# some\n#  de_DE.UTF-8 UTF-8  \nfr_FR ISO-8859-1\n",
                "de_DE.UTF-8 UTF-8\nfr_FR ISO-8859-1\nfr_FR\nsd_IN@x UTF-8\n",
            ),
            ("", "a.b\na-b\na.b\n"),
            ("unended", "a.b\n"),
            ("x\n", "a[b\n  a_b\n"),
        ] {
            std::fs::write(&names, asked).unwrap();
            let results = [&text, &edited].map(|script| {
                std::fs::write(&list, there).unwrap();
                let done = Command::new("sh").args(["-ec", script, "x"]).args([&list, &names]).status().unwrap();
                (done.success(), std::fs::read_to_string(&list).unwrap())
            });
            assert_eq!(results[0], results[1], "{there:?} {asked:?}");
            assert!(results[0].0);
        }
    }

    #[test]
    fn certificates_are_looked_for_where_there_are_some() {
        let text = format!(
            "each() {{\n  for crt in $crts\n  do\n{}\n  echo disabled $crt\n{}\n  echo trusted $crt\n  else echo new $crt; fi\n  done\n}}\neach\n",
            CERTIFICATES[0].0, CERTIFICATES[1].0
        );
        let edited = loops("ca-certificates.config", &text).unwrap();
        assert_ne!(edited, text);
        for (disabled, trusted) in [("", ""), ("a", ""), ("", "b\nc"), ("a", "b")] {
            let outputs = [&text, &edited].map(|script| {
                let mut command = Command::new("sh");
                command.args(["-ec", script]).envs([
                    ("crts", "a b c d"),
                    ("CERTS_DISABLED", disabled),
                    ("CERTS_TRUST", trusted),
                ]);
                String::from_utf8(command.output().unwrap().stdout).unwrap()
            });
            assert_eq!(outputs[0], outputs[1]);
            assert_eq!(outputs[0].lines().count(), 4);
        }
    }
}
