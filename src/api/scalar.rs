//! Values that keep the text the author wrote: scalars of any type, file modes, sizes.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A scalar whose text matters and whose type does not: `4194303`, `1`, `"yes"`. Kept as text.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Scalar(pub String);

impl Scalar {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for Scalar {
    fn from(text: &str) -> Self {
        Scalar(text.to_owned())
    }
}

impl Serialize for Scalar {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Scalar {
    /// Asks for a string: the document room answers with the raw text of any scalar; JSON numbers and booleans are
    /// taken by their usual spelling.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Scalar;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, number or boolean")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Scalar, E> {
                Ok(Scalar(text.to_owned()))
            }
            fn visit_bool<E: de::Error>(self, value: bool) -> Result<Scalar, E> {
                Ok(Scalar(value.to_string()))
            }
            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Scalar, E> {
                Ok(Scalar(value.to_string()))
            }
            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Scalar, E> {
                Ok(Scalar(value.to_string()))
            }
            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Scalar, E> {
                Ok(Scalar(value.to_string()))
            }
        }
        deserializer.deserialize_str(Visitor)
    }
}

/// Permission bits written in octal: `"0755"` or `0755`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mode(pub u16);

impl Serialize for Mode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format!("{:04o}", self.0))
    }
}

impl<'de> Deserialize<'de> for Mode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Scalar::deserialize(deserializer)?.0;
        let digits = text.strip_prefix("0o").unwrap_or(&text);
        match u16::from_str_radix(digits, 8) {
            Ok(mode) if mode <= 0o7777 && !digits.starts_with('+') => Ok(Mode(mode)),
            _ => Err(de::Error::custom(format!("`{text}` is not a file mode: expected octal digits such as `0644`"))),
        }
    }
}

/// A size in bytes: `19G`, `512MiB`, `4096`. `K`, `M`, `G`, `T` and `KiB` ... are powers of 1024 (as qemu-img reads
/// them); `KB` ... are powers of 1000 (as parted reads them).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

impl Size {
    pub fn parse(text: &str) -> Option<Self> {
        let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let number: u64 = text[..split].parse().ok()?;
        let factor: u64 = match text[split..].trim() {
            "" | "B" => 1,
            "K" | "KiB" | "k" => 1 << 10,
            "M" | "MiB" => 1 << 20,
            "G" | "GiB" => 1 << 30,
            "T" | "TiB" => 1 << 40,
            "KB" | "kB" => 1_000,
            "MB" => 1_000_000,
            "GB" => 1_000_000_000,
            "TB" => 1_000_000_000_000,
            _ => return None,
        };
        number.checked_mul(factor).map(Size)
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let units = [(1 << 30, "G"), (1 << 20, "M"), (1 << 10, "K")];
        let text = units
            .iter()
            .find(|(factor, _)| self.0 > 0 && self.0 % factor == 0)
            .map_or_else(|| self.0.to_string(), |(factor, unit)| format!("{}{unit}", self.0 / factor));
        serializer.serialize_str(&text)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Scalar::deserialize(deserializer)?.0;
        Size::parse(&text).ok_or_else(|| {
            de::Error::custom(format!("`{text}` is not a size: expected something like `19G` or `512MiB`"))
        })
    }
}

/// A size, or `auto`: as large as the content wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AutoSize {
    Auto,
    Size(Size),
}

impl AutoSize {
    /// In bytes; `None` for `auto`.
    pub fn bytes(self) -> Option<u64> {
        match self {
            AutoSize::Auto => None,
            AutoSize::Size(size) => Some(size.0),
        }
    }
}

impl From<Size> for AutoSize {
    fn from(size: Size) -> Self {
        AutoSize::Size(size)
    }
}

impl Serialize for AutoSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            AutoSize::Auto => serializer.serialize_str("auto"),
            AutoSize::Size(size) => size.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for AutoSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Scalar::deserialize(deserializer)?.0;
        match text.trim() {
            "auto" => Ok(AutoSize::Auto),
            other => Size::parse(other).map(AutoSize::Size).ok_or_else(|| {
                de::Error::custom(format!(
                    "`{text}` is not a size: expected something like `19G` or `512MiB`, or `auto`"
                ))
            }),
        }
    }
}

/// Room on top of what content needs: `10%` of it, `256MiB`, or both as `10%+256MiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Headroom {
    pub percent: u32,
    pub bytes: u64,
}

impl Headroom {
    pub fn parse(text: &str) -> Option<Self> {
        let mut found = Headroom { percent: 0, bytes: 0 };
        let mut parts = text.split('+').map(str::trim).peekable();
        if let Some(percent) = parts.peek().and_then(|part| part.strip_suffix('%')) {
            let digits = percent.trim();
            let known = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            found.percent = digits.parse().ok().filter(|percent| known && *percent <= 10_000)?;
            parts.next();
            if parts.peek().is_none() {
                return Some(found);
            }
        }
        found.bytes = Size::parse(parts.next()?)?.0;
        parts.next().is_none().then_some(found)
    }

    /// The sum; as much as there is when that is more than a number can say.
    pub fn on_top_of(self, bytes: u64) -> u64 {
        let part = u128::from(bytes) * u128::from(self.percent) / 100;
        bytes.saturating_add(u64::try_from(part).unwrap_or(u64::MAX)).saturating_add(self.bytes)
    }
}

impl Serialize for Headroom {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format!("{}%+{}", self.percent, self.bytes))
    }
}

impl<'de> Deserialize<'de> for Headroom {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Scalar::deserialize(deserializer)?.0;
        Headroom::parse(&text).ok_or_else(|| {
            de::Error::custom(format!("`{text}` is no headroom: expected `10%`, `256MiB`, or both as `10%+256MiB`"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headroom() {
        let of = |text: &str| Headroom::parse(text).map(|found| (found.percent, found.bytes));
        assert_eq!(of("10%"), Some((10, 0)));
        assert_eq!(of("256MiB"), Some((0, 256 << 20)));
        assert_eq!(of("10% + 1G"), Some((10, 1 << 30)));
        for bad in ["", "%", "+", "10%+", "1G+10%", "10%+1G+1G", "-1%", "+5%", "1.5%", "99999999999%", "x"] {
            assert_eq!(of(bad), None, "{bad}");
        }
        assert_eq!(Headroom { percent: 10, bytes: 5 }.on_top_of(1000), 1105);
        assert_eq!(Headroom { percent: 10_000, bytes: 5 }.on_top_of(u64::MAX), u64::MAX);
        let text = serde_json::to_string(&Headroom { percent: 10, bytes: 5 }).unwrap();
        assert_eq!(serde_json::from_str::<Headroom>(&text).unwrap(), Headroom { percent: 10, bytes: 5 });
    }

    #[test]
    fn sizes_may_be_automatic() {
        assert_eq!(serde_json::from_str::<AutoSize>("\"auto\"").unwrap(), AutoSize::Auto);
        assert_eq!(serde_json::from_str::<AutoSize>("\"1K\"").unwrap().bytes(), Some(1024));
        assert!(serde_json::from_str::<AutoSize>("\"much\"").is_err());
        assert_eq!(serde_json::to_string(&AutoSize::Auto).unwrap(), "\"auto\"");
    }

    #[test]
    fn sizes() {
        assert_eq!(Size::parse("19G"), Some(Size(19 << 30)));
        assert_eq!(Size::parse("1MB"), Some(Size(1_000_000)));
        assert_eq!(Size::parse("99999999999T"), None);
        assert_eq!(Size::parse("x"), None);
        assert_eq!(serde_json::to_string(&Size(19 << 30)).unwrap(), "\"19G\"");
    }

    #[test]
    fn modes() {
        assert_eq!(serde_json::from_str::<Mode>("\"0755\"").unwrap(), Mode(0o755));
        assert!(serde_json::from_str::<Mode>("\"999\"").is_err());
        assert!(serde_json::from_str::<Mode>("\"17777\"").is_err());
    }
}
