//! What a scalar's text means, and how numbers are spelt.
//!
//! Owns: [`resolve`], which types text as kustomize reads resources (YAML 1.2 booleans and null; the integers of
//! YAML 1.1 with `012` octal and `1_000`; dates), and [`needs_quotes`], which tells whether a string would be read
//! as something else by a YAML 1.1 or 1.2 reader. Facts: behaviour of kustomize 5, observed.

use std::borrow::Cow;

use super::node::{Scalar, Style, Tag};

#[derive(Debug, Clone, PartialEq)]
pub enum Resolved<'a> {
    Null,
    Bool(bool),
    /// Every integer of 64 bits, signed or not.
    Int(i128),
    Float(f64),
    /// A date or time, in the spelling of RFC 3339.
    Timestamp(String),
    Str(&'a str),
}

impl Resolved<'_> {
    /// For messages: "string `yes`".
    pub fn describe(&self, text: &str) -> String {
        let text = shorten(text);
        match self {
            Resolved::Null => "null".into(),
            Resolved::Bool(_) => format!("boolean `{text}`"),
            Resolved::Int(_) => format!("integer `{text}`"),
            Resolved::Float(_) => format!("number `{text}`"),
            Resolved::Timestamp(_) => format!("date `{text}`"),
            Resolved::Str(_) => format!("string `{text}`"),
        }
    }
}

fn shorten(text: &str) -> Cow<'_, str> {
    let line = text.split(['\n', '\r']).next().unwrap_or_default();
    if line.chars().count() <= 60 && line.len() == text.len() {
        Cow::Borrowed(text)
    } else {
        Cow::Owned(line.chars().take(57).chain("...".chars()).collect())
    }
}

pub fn resolve(scalar: &Scalar) -> Resolved<'_> {
    let text = scalar.text.as_str();
    match scalar.tag {
        None if scalar.style == Style::Plain => resolve_plain(text),
        None | Some(Tag::Str) => Resolved::Str(text),
        Some(Tag::Float) => match resolve_plain(text) {
            Resolved::Int(value) => Resolved::Float(value as f64),
            other => other,
        },
        Some(_) => resolve_plain(text),
    }
}

/// The meaning of plain text.
pub fn resolve_plain(text: &str) -> Resolved<'_> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Resolved::Null,
        "true" | "True" | "TRUE" => return Resolved::Bool(true),
        "false" | "False" | "FALSE" => return Resolved::Bool(false),
        ".nan" | ".NaN" | ".NAN" => return Resolved::Float(f64::NAN),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => return Resolved::Float(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => return Resolved::Float(f64::NEG_INFINITY),
        _ => {}
    }
    match text.as_bytes()[0] {
        b'+' | b'-' | b'0'..=b'9' => {
            if let Some(stamp) = timestamp(text) {
                return Resolved::Timestamp(stamp);
            }
            let digits = without_underscores(text);
            if let Some(value) = integer(&digits) {
                return Resolved::Int(value);
            }
            match float(&digits) {
                Some(value) => Resolved::Float(value),
                None => Resolved::Str(text),
            }
        }
        b'.' => float(text).map_or(Resolved::Str(text), Resolved::Float),
        _ => Resolved::Str(text),
    }
}

fn without_underscores(text: &str) -> Cow<'_, str> {
    if text.contains('_') { Cow::Owned(text.replace('_', "")) } else { Cow::Borrowed(text) }
}

/// Decimal, `0x`, `0o`, `0b` and a bare leading zero as octal; what fits 64 bits.
fn integer(text: &str) -> Option<i128> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let (radix, digits) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &digits[2..]),
        [b'0', b'o' | b'O', ..] => (8, &digits[2..]),
        [b'0', b'b' | b'B', ..] => (2, &digits[2..]),
        [b'0', _, ..] => (8, &digits[1..]),
        _ => (10, digits),
    };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return None;
    }
    let magnitude = i128::from(u64::from_str_radix(digits, radix).ok()?);
    match (negative, text.starts_with('+')) {
        (true, _) if magnitude <= 1 << 63 => Some(-magnitude),
        // A plus sign is only known to the signed reader.
        (false, true) if magnitude <= i128::from(i64::MAX) => Some(magnitude),
        (false, false) => Some(magnitude),
        _ => None,
    }
}

/// `[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`, and no overflow.
fn float(text: &str) -> Option<f64> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = match unsigned.find(['e', 'E']) {
        Some(at) => (&unsigned[..at], Some(&unsigned[at + 1..])),
        None => (unsigned, None),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let mantissa_fits = match fraction {
        Some(fraction) => digits(whole) && digits(fraction) && !(whole.is_empty() && fraction.is_empty()),
        None => !whole.is_empty() && digits(whole),
    };
    let exponent_fits = exponent.is_none_or(|exponent| {
        let exponent = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
        !exponent.is_empty() && digits(exponent)
    });
    if !mantissa_fits || !exponent_fits {
        return None;
    }
    text.parse::<f64>().ok().filter(|value| value.is_finite())
}

/// A date (`2001-1-2`) or a time (`2001-01-02T03:04:05.6Z`, or with a blank and no zone), as RFC 3339.
fn timestamp(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    if bytes.len() < 8 || bytes[4] != b'-' || !bytes[..4].iter().all(u8::is_ascii_digit) {
        return None;
    }
    let (date, time) = match text.find(['T', 't', ' ']) {
        Some(at) => (&text[..at], Some((text.as_bytes()[at], &text[at + 1..]))),
        None => (text, None),
    };
    let mut parts = date.split('-');
    let year: u32 = parts.next()?.parse().ok()?;
    let month = short_number(parts.next()?, 1, 12)?;
    let day = short_number(parts.next()?, 1, days_of(year, month))?;
    if parts.next().is_some() {
        return None;
    }
    let clock = match time {
        None => "00:00:00Z".to_owned(),
        Some((separator, rest)) => clock(rest, separator != b' ')?,
    };
    Some(format!("{year:04}-{month:02}-{day:02}T{clock}"))
}

fn days_of(year: u32, month: u32) -> u32 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// One or two digits within bounds.
fn short_number(text: &str, low: u32, high: u32) -> Option<u32> {
    let fits = matches!(text.len(), 1 | 2) && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|value| fits && (low..=high).contains(value))
}

fn clock(text: &str, zoned: bool) -> Option<String> {
    let (time, zone) = match (zoned, text.find(['Z', '+', '-'])) {
        (true, Some(at)) => (&text[..at], &text[at..]),
        (false, None) => (text, "Z"),
        _ => return None,
    };
    let mut parts = time.split(':');
    let hour = short_number(parts.next()?, 0, 23)?;
    let minute = short_number(parts.next()?, 0, 59)?;
    let seconds = parts.next()?;
    let (second, fraction) = seconds.split_once('.').unwrap_or((seconds, ""));
    let second = short_number(second, 0, 59)?;
    let fraction_fits = fraction.len() <= 9 && fraction.bytes().all(|byte| byte.is_ascii_digit());
    if parts.next().is_some() || !fraction_fits || (seconds.contains('.') && fraction.is_empty()) {
        return None;
    }
    let zone_fits = zone == "Z"
        || (zone.len() == 6
            && zone.as_bytes()[3] == b':'
            && short_number(&zone[1..3], 0, 23).is_some()
            && short_number(&zone[4..], 0, 59).is_some());
    if !zone_fits {
        return None;
    }
    let zone = if matches!(zone, "+00:00" | "-00:00") { "Z" } else { zone };
    let fraction = fraction.trim_end_matches('0');
    let dot = if fraction.is_empty() { "" } else { "." };
    Some(format!("{hour:02}:{minute:02}:{second:02}{dot}{fraction}{zone}"))
}

/// Whether a string must be quoted so that readers of YAML 1.1 and 1.2 take it for a string.
pub fn needs_quotes(text: &str) -> bool {
    const OLD_BOOLEANS: [&str; 14] =
        ["y", "Y", "yes", "Yes", "YES", "n", "N", "no", "No", "NO", "on", "On", "ON", "off"];
    !matches!(resolve_plain(text), Resolved::Str(_))
        || OLD_BOOLEANS.contains(&text)
        || matches!(text, "Off" | "OFF")
        || is_sexagesimal(text)
}

/// `12:30`, `1:02:03.5`: numbers to base 60 in YAML 1.1.
fn is_sexagesimal(text: &str) -> bool {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (groups, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    let mut parts = groups.split(':');
    let first = parts.next().unwrap_or_default();
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit() || byte == b'_');
    let mut rest = parts.peekable();
    first.as_bytes().first().is_some_and(u8::is_ascii_digit)
        && digits(first)
        && rest.peek().is_some()
        && rest.all(|part| short_number(part, 0, 59).is_some())
        && digits(fraction)
}

/// The shortest digits of a finite number that read back as itself, and its decimal exponent (d.ddd * 10^e).
fn shortest(value: f64) -> (bool, String, i32) {
    let text = format!("{value:e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    (value.is_sign_negative(), digits, exponent.parse().unwrap_or_default())
}

/// A finite number as JSON writers of Go spell it, and as a YAML 1.1 writer of Go spells the number read back from
/// that: both steps are visible in what kustomize prints.
pub fn number_text(value: f64) -> String {
    let json = json_number(value);
    match resolve_plain(&json) {
        Resolved::Int(value) => value.to_string(),
        _ => {
            let (negative, digits, exponent) = shortest(value);
            if (-4..6).contains(&exponent) {
                positional(negative, &digits, exponent)
            } else {
                scientific(negative, &digits, exponent, 2)
            }
        }
    }
}

/// As JSON writers of Go spell a number.
pub fn json_number(value: f64) -> String {
    let (negative, digits, exponent) = shortest(value);
    if value == 0.0 || (-6..21).contains(&exponent) {
        positional(negative, &digits, exponent)
    } else {
        scientific(negative, &digits, exponent, 1)
    }
}

fn positional(negative: bool, digits: &str, exponent: i32) -> String {
    let sign = if negative { "-" } else { "" };
    if exponent < 0 {
        return format!("{sign}0.{}{digits}", "0".repeat((-exponent - 1) as usize));
    }
    let whole = exponent as usize + 1;
    if digits.len() <= whole {
        format!("{sign}{digits}{}", "0".repeat(whole - digits.len()))
    } else {
        format!("{sign}{}.{}", &digits[..whole], &digits[whole..])
    }
}

fn scientific(negative: bool, digits: &str, exponent: i32, width: usize) -> String {
    let sign = if negative { "-" } else { "" };
    let dot = if digits.len() > 1 { "." } else { "" };
    let direction = if exponent < 0 { '-' } else { '+' };
    format!("{sign}{}{dot}{}e{direction}{:0width$}", &digits[..1], &digits[1..], exponent.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_means_what_kustomize_reads() {
        let int = |text| match resolve_plain(text) {
            Resolved::Int(value) => Some(value),
            _ => None,
        };
        assert_eq!(int("012"), Some(10));
        assert_eq!(int("0o17"), Some(15));
        assert_eq!(int("0x1F"), Some(31));
        assert_eq!(int("1_000"), Some(1000));
        assert_eq!(int("18446744073709551615"), Some(u64::MAX.into()));
        assert_eq!(int("08"), None);
        assert_eq!(resolve_plain("08"), Resolved::Float(8.0));
        assert_eq!(resolve_plain("yes"), Resolved::Str("yes"));
        assert_eq!(resolve_plain("1.10.3"), Resolved::Str("1.10.3"));
        assert_eq!(resolve_plain("12:30"), Resolved::Str("12:30"));
        assert_eq!(resolve_plain("2001-1-2"), Resolved::Timestamp("2001-01-02T00:00:00Z".into()));
        assert_eq!(resolve_plain("2001-02-30"), Resolved::Str("2001-02-30"));
    }

    #[test]
    fn strings_that_other_readers_take_for_something_else_need_quotes() {
        for text in ["", "y", "off", "012", "1e3", "12:30", "2001-01-01", "0o7", "~", ".5", "1:02:03.5"] {
            assert!(needs_quotes(text), "{text}");
        }
        for text in ["yEs", "1.2.3", "12:75", "a", "0z", "-", "2001-13-01", "v1.10"] {
            assert!(!needs_quotes(text), "{text}");
        }
    }

    #[test]
    fn numbers_are_spelt_as_after_a_trip_through_json() {
        for (value, text) in [
            (1.5, "1.5"),
            (1.0, "1"),
            (1e21, "1e+21"),
            (1e20, "1e+20"),
            (0.5, "0.5"),
            (1234567.891, "1.234567891e+06"),
            (123456.5, "123456.5"),
            (0.00001, "1e-05"),
            (0.0001, "0.0001"),
            (-0.0, "0"),
        ] {
            assert_eq!(number_text(value), text);
        }
    }
}
