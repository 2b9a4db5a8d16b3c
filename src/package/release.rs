//! The signed description of a suite (`InRelease`, Debian repository format).
//!
//! Owns: [`Release`]: what the signed text says, and the checks on it (right suite, not expired, not from the
//! future). Which signature counts is `keyring`'s business, not going back in time `fetch::index`'s.

use std::collections::BTreeMap;

use crate::error::{Error, Kind, Result};
use crate::tree::Digest;

use super::deb822::{Stanza, stanzas};
use super::keyring::CLOCK_SLACK;

#[derive(Debug, Clone)]
pub struct Release {
    /// As written.
    pub date_text: String,
    /// Seconds since the epoch.
    pub date: i64,
    pub valid_until: Option<i64>,
    pub suite: String,
    pub codename: String,
    pub components: Vec<String>,
    pub by_hash: bool,
    /// apt's pin priority for everything in the suite: 500, or less for suites like backports.
    pub default_pin: i32,
    /// Packages of architecture `all` have an index of their own; else they are in that of each architecture.
    pub separate_all: bool,
    /// Path below the suite -> size and digest.
    pub files: BTreeMap<String, (u64, Digest)>,
}

impl Release {
    /// Reads the signed text.
    pub fn parse(text: &str) -> Result<Self> {
        let stanza = stanzas(text).next().ok_or_else(|| wrong("it is empty"))?;
        let field = |name| stanza.get(name).unwrap_or_default();
        let yes = |name| field(name).eq_ignore_ascii_case("yes");
        let has = |name, wanted| field(name).split_whitespace().any(|word| word == wanted);
        let date_text = field("Date").to_owned();
        let date = parse_date(&date_text).ok_or_else(|| wrong(format!("`Date: {date_text}` is not a date")))?;
        let valid_until = match stanza.get("Valid-Until") {
            None => None,
            Some(text) => Some(parse_date(text).ok_or_else(|| wrong(format!("`Valid-Until: {text}` is not a date")))?),
        };
        Ok(Release {
            date,
            date_text,
            valid_until,
            suite: field("Suite").to_owned(),
            codename: field("Codename").to_owned(),
            components: field("Components").split_whitespace().map(last_part).collect(),
            by_hash: yes("Acquire-By-Hash"),
            default_pin: match (yes("NotAutomatic"), yes("ButAutomaticUpgrades")) {
                (false, _) => 500,
                (true, false) => 1,
                (true, true) => 100,
            },
            separate_all: has("Architectures", "all") && !has("No-Support-for-Architecture-all", "Packages"),
            files: files(stanza)?,
        })
    }

    /// Whether this is the suite that was asked for, and whether it may be used now.
    pub fn check(&self, suite: &str, now: i64) -> Result<()> {
        let flat = suite.ends_with('/');
        // `focal-updates` has `Codename: focal`, and is not `focal` all the same.
        let pocket = self.suite.strip_prefix(suite).is_some_and(|rest| rest.starts_with('-'));
        if !flat && self.suite != suite && (self.codename != suite || pocket) {
            return Err(Error::new(
                Kind::Authenticity,
                format!("suite `{suite}` was asked for, the index is for `{}` (`{}`)", self.suite, self.codename),
            )
            .hint("the mirror delivers another suite under this name"));
        }
        if self.date > now.saturating_add(CLOCK_SLACK) {
            return Err(Error::new(Kind::Authenticity, format!("the index is from the future ({})", self.date_text))
                .hint("check the clock of this machine"));
        }
        match self.valid_until {
            Some(until) if until < now => {
                Err(Error::new(Kind::Authenticity, format!("the index has expired (it is of {})", self.date_text))
                    .hint("the mirror is out of date, use another one; or the clock of this machine is wrong"))
            }
            _ => Ok(()),
        }
    }
}

/// The `SHA256` field: a digest, a size and a path per line. Weaker digests are not looked at.
fn files(stanza: Stanza<'_>) -> Result<BTreeMap<String, (u64, Digest)>> {
    let mut files = BTreeMap::new();
    for line in stanza.get("SHA256").unwrap_or_default().lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let parsed = match words[..] {
            [] => continue,
            [digest, size, path] => Digest::from_hex(digest).zip(size.parse().ok()).map(|file| (path, file)),
            _ => None,
        };
        let (path, (digest, size)) = parsed.ok_or_else(|| wrong(format!("`{line}` is not a line of checksums")))?;
        files.insert(path.to_owned(), (size, digest));
    }
    Ok(files)
}

/// Debian's security archive writes components as `updates/main`.
fn last_part(component: &str) -> String {
    component.rsplit('/').next().unwrap_or(component).to_owned()
}

/// RFC 2822, in UTC as archives write it: `Sat, 11 Jul 2026 10:16:37 UTC`; Ubuntu's leave out the zero of ` 1:56:24`.
fn parse_date(text: &str) -> Option<i64> {
    let word = |word: &str| match word {
        "UTC" | "GMT" => "+0000".to_owned(),
        short if short.find(':') == Some(1) => format!("0{short}"),
        other => other.to_owned(),
    };
    let numeric: Vec<String> = text.split_whitespace().map(word).collect();
    let numeric = numeric.join(" ");
    jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(&numeric).ok().map(jiff::Timestamp::as_second)
}

fn wrong(problem: impl std::fmt::Display) -> Error {
    Error::new(Kind::Authenticity, format!("the signed index of the suite cannot be used: {problem}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "Origin: Debian\nSuite: oldstable\nCodename: bookworm\nDate: Sat, 11 Jul 2026 10:16:37 UTC\n\
        Valid-Until: Sat, 18 Jul 2026 10:16:37 UTC\nAcquire-By-Hash: yes\nComponents: updates/main contrib\n\
        No-Support-for-Architecture-all: Packages\nMD5Sum:\n 0 1 x\nSHA256:\n \
        e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855   12 main/binary-amd64/Packages.xz\n";

    #[test]
    fn fields() {
        let release = Release::parse(TEXT).unwrap();
        assert_eq!(release.date, 1_783_764_997);
        assert_eq!(release.valid_until, Some(1_783_764_997 + 7 * 86400));
        assert_eq!(release.components, ["main", "contrib"]);
        assert!(release.by_hash && !release.separate_all);
        let separate = TEXT.replace("No-Support-for-Architecture-all: Packages", "Architectures: amd64 all");
        assert!(Release::parse(&separate).unwrap().separate_all);
        assert_eq!(release.files["main/binary-amd64/Packages.xz"], (12, Digest::of(b"")));
        assert_eq!(release.default_pin, 500);
        let short = Release::parse(&TEXT.replace(" 10:16:37 UTC", "  1:16:37 UTC")).unwrap();
        assert_eq!(short.date, release.date - 9 * 3600);
        let backports = TEXT.replace("Acquire", "NotAutomatic: yes\nButAutomaticUpgrades: yes\nAcquire");
        assert_eq!(Release::parse(&backports).unwrap().default_pin, 100);
    }

    #[test]
    fn the_right_suite_at_the_right_time() {
        let release = Release::parse(TEXT).unwrap();
        let date = release.date;
        assert!(release.check("bookworm", date).is_ok());
        assert!(release.check("oldstable", date).is_ok());
        let pocket = Release::parse(&TEXT.replace("oldstable", "bookworm-updates")).unwrap();
        assert!(pocket.check("bookworm", date).is_err() && pocket.check("bookworm-updates", date).is_ok());
        for (suite, now, words) in [
            ("trixie", date, "asked for, the index is for `oldstable` (`bookworm`)"),
            ("bookworm", date + 8 * 86400, "has expired"),
            ("bookworm", date - 2 * 86400, "from the future"),
        ] {
            let error = release.check(suite, now).unwrap_err();
            assert_eq!(error.kind(), Kind::Authenticity);
            assert!(error.to_string().contains(words), "{error}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for (from, to) in [("Date: Sat", "Date: Foo"), ("Valid-Until: Sat", "Valid-Until: x"), ("  12 main", " x main")]
        {
            assert_eq!(Release::parse(&TEXT.replace(from, to)).unwrap_err().kind(), Kind::Authenticity, "{to}");
        }
        assert!(Release::parse("").is_err());
    }
}
