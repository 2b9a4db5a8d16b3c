//! `SOURCE_DATE_EPOCH` of the environment (reproducible-builds.org/specs/source-date-epoch).
//!
//! Owns: [`source_date_epoch`]. What it gives goes into the lock, which is the only place the build takes it from.

use crate::error::{Error, Kind, Result};

const VARIABLE: &str = "SOURCE_DATE_EPOCH";
/// FAT ends in 2107, a VHD footer in 2136, `tar` without extensions in 2242, ext4 in 2446: 32 bits fit everywhere.
const LATEST: i64 = u32::MAX as i64;

/// Seconds since 1970, or `None` if the variable is unset or empty.
pub fn source_date_epoch() -> Result<Option<i64>> {
    match std::env::var_os(VARIABLE) {
        None => Ok(None),
        Some(value) if value.is_empty() => Ok(None),
        Some(value) => parse(&value.to_string_lossy()).map(Some),
    }
}

fn parse(text: &str) -> Result<i64> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let seconds = text.parse::<i64>().ok().filter(|seconds| digits && *seconds <= LATEST);
    seconds.ok_or_else(|| {
        Error::new(Kind::Usage, format!("{VARIABLE} is `{text}`, which is no time that every format can keep"))
            .hint(format!("give whole seconds since 1970-01-01, at most {LATEST} (the year 2106), or unset it"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_seconds_that_fit_everywhere() {
        for (text, seconds) in [("0", 0), ("1700000000", 1_700_000_000), ("4294967295", LATEST)] {
            assert_eq!(parse(text).unwrap(), seconds);
        }
        for text in ["-1", "+1", "1.5", "1e9", " 1", "4294967296", "99999999999999999999", "yesterday"] {
            assert_eq!(parse(text).unwrap_err().kind(), Kind::Usage, "{text}");
        }
    }
}
