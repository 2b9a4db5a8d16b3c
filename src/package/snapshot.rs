//! Dated snapshots of an archive: where a repository lies that is taken as it was at a point in time.
//!
//! Owns: [`Snapshot`]: reading `snapshot` and `snapshotSource` of a repository, and [`address`]. The services are
//! snapshot.debian.org and snapshot.ubuntu.com, or a mirror of one's own. That nothing but the snapshot is used, and
//! that it is none of a later time, is `fetch::index`'s business.

use crate::api::params::distribution::Repository;
use crate::error::{Error, Result};

/// Stands for the time stamp in an address.
const PLACEHOLDER: &str = "{snapshot}";

/// Archives whose snapshots have a known address, by the last part of a mirror's address.
const KNOWN: [(&str, &str); 3] = [
    ("debian", "http://snapshot.debian.org/archive/debian/{snapshot}"),
    ("debian-security", "http://snapshot.debian.org/archive/debian-security/{snapshot}"),
    ("ubuntu", "http://snapshot.ubuntu.com/ubuntu/{snapshot}"),
];

/// A point in time, and the archive as it was then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Seconds since the epoch.
    pub time: i64,
    /// As written.
    pub stamp: String,
    pub source: String,
}

impl Snapshot {
    /// What a repository asks for, if it does.
    pub fn of(repository: &Repository) -> Result<Option<Self>> {
        let Some(stamp) = &repository.snapshot else {
            return match &repository.snapshot_source {
                None => Ok(None),
                Some(_) => Err(Error::documents("`snapshotSource` without a `snapshot`")
                    .about(&["snapshotSource"])
                    .hint("say which one: `snapshot: 20261101T000000Z`")),
            };
        };
        let time = parse(stamp).ok_or_else(|| {
            Error::documents(format!("`{stamp}` is not the time stamp of a snapshot"))
                .about(&["snapshot"])
                .hint("it looks like `20261101T000000Z`: date, `T`, time, `Z` for UTC")
        })?;
        let template = match &repository.snapshot_source {
            Some(template) if template.contains(PLACEHOLDER) => template.as_str(),
            Some(_) => {
                return Err(Error::documents(format!("`snapshotSource` has no `{PLACEHOLDER}`"))
                    .about(&["snapshotSource"])
                    .hint("it stands where the time stamp goes: `http://mirror.example/debian/{snapshot}`"));
            }
            None => known(&repository.source)?,
        };
        Ok(Some(Snapshot { time, stamp: stamp.clone(), source: template.replace(PLACEHOLDER, stamp) }))
    }
}

/// Where the files of a repository are taken from: its snapshot if it has one, never anything else then.
pub fn address(repository: &Repository) -> Result<String> {
    Ok(Snapshot::of(repository)?.map_or_else(|| repository.source.clone(), |snapshot| snapshot.source))
}

fn known(source: &str) -> Result<&'static str> {
    let archive = source.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    let found = KNOWN.iter().find(|(name, _)| *name == archive).map(|(_, template)| *template);
    found.ok_or_else(|| {
        Error::documents("nothing is known about snapshots of this repository").about(&["snapshot"]).hint(
            "say where they are with `snapshotSource: http://.../{snapshot}`, or `snapshot: none` to take it live",
        )
    })
}

/// `20261101T000000Z`, nothing else.
fn parse(stamp: &str) -> Option<i64> {
    let shape = stamp.bytes().enumerate().all(|(at, byte)| match at {
        8 => byte == b'T',
        15 => byte == b'Z',
        _ => byte.is_ascii_digit(),
    });
    if stamp.len() != 16 || !shape {
        return None;
    }
    let time = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%SZ", stamp).ok()?;
    time.to_zoned(jiff::tz::TimeZone::UTC).ok().map(|time| time.timestamp().as_second())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(source: &str, snapshot: Option<&str>, template: Option<&str>) -> Result<Option<Snapshot>> {
        Snapshot::of(&Repository {
            source: source.into(),
            snapshot: snapshot.map(Into::into),
            snapshot_source: template.map(Into::into),
            ..Repository::default()
        })
    }

    #[test]
    fn the_known_services_and_mirrors_of_ones_own() {
        let stamp = Some("20231114T221320Z");
        let source = |source, template| of(source, stamp, template).unwrap().unwrap().source;
        let debian = source("http://deb.debian.org/debian", None);
        assert_eq!(debian, "http://snapshot.debian.org/archive/debian/20231114T221320Z");
        let security = source("http://mirror/x/debian-security/", None);
        assert_eq!(security, "http://snapshot.debian.org/archive/debian-security/20231114T221320Z");
        let ubuntu = source("http://archive.ubuntu.com/ubuntu", None);
        assert_eq!(ubuntu, "http://snapshot.ubuntu.com/ubuntu/20231114T221320Z");
        assert_eq!(source("http://x/debian", Some("http://m/{snapshot}/d")), "http://m/20231114T221320Z/d");
        assert_eq!(of("http://x/debian", stamp, None).unwrap().unwrap().time, 1_700_000_000);
        assert_eq!(of("http://x/debian", None, None).unwrap(), None);
    }

    #[test]
    fn what_cannot_be_a_snapshot() {
        for stamp in ["2023", "20231114T221320", "20231314T221320Z", "20231114 221320Z", "latest", "../../../../../Z"] {
            let error = of("http://x/debian", Some(stamp), None).unwrap_err();
            assert!(error.to_string().contains("is not the time stamp"), "{error}");
        }
        let stamp = Some("20231114T221320Z");
        assert!(of("http://vendor/apt", stamp, None).unwrap_err().hints()[0].contains("snapshotSource"));
        assert!(of("http://x/debian", stamp, Some("http://m/")).unwrap_err().to_string().contains("{snapshot}"));
        assert!(of("http://x/debian", None, Some("http://m/{snapshot}")).is_err());
    }
}
