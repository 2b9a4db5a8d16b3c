//! The clock of the machine must be later than everything that a build dates.
//!
//! Owns: [`check`]. What scripts write gets the time of the clock and is known by that: anything later than the epoch
//! becomes the epoch. With a clock before it (a board without battery, a `SOURCE_DATE_EPOCH` of tomorrow) such files
//! could not be told from those of packages, and the image would depend on the day.

use crate::error::{Error, Result};

/// `dates` are those of the build: its epoch and the times of its packages. `now` is the clock.
pub fn check(now: i64, dates: impl IntoIterator<Item = i64>) -> Result<()> {
    match dates.into_iter().max() {
        Some(latest) if latest > now => {
            let say = |seconds: i64| {
                jiff::Timestamp::from_second(seconds).map_or_else(|_| seconds.to_string(), |time| time.to_string())
            };
            let message =
                format!("the clock of this machine says {}, but the image has times up to {}", say(now), say(latest));
            Err(Error::build(message).hint("set the clock; a SOURCE_DATE_EPOCH must be a time that has passed"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_behind_is_refused() {
        check(100, [7, 100]).unwrap();
        check(0, []).unwrap();
        let error = check(100, [7, 101]).unwrap_err().to_string();
        assert!(error.contains("1970-01-01T00:01:40Z") && error.contains("up to 1970-01-01T00:01:41Z"), "{error}");
    }
}
