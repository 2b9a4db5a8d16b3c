//! Order of Debian package versions (Debian Policy 5.6.12), without allocation.
//!
//! Owns: [`compare`], [`satisfies`] and the relation operators.

use std::cmp::Ordering;

/// A version relation (Debian Policy 7.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operator {
    Earlier,
    EarlierOrEqual,
    Equal,
    LaterOrEqual,
    Later,
}

impl Operator {
    /// As written in a control file; `<` and `>` are the obsolete forms of `<=` and `>=`.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "<<" => Operator::Earlier,
            "<=" | "<" => Operator::EarlierOrEqual,
            "=" => Operator::Equal,
            ">=" | ">" => Operator::LaterOrEqual,
            ">>" => Operator::Later,
            _ => return None,
        })
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Operator::Earlier => "<<",
            Operator::EarlierOrEqual => "<=",
            Operator::Equal => "=",
            Operator::LaterOrEqual => ">=",
            Operator::Later => ">>",
        }
    }
}

/// Whether `version` stands in this relation to `wanted`.
pub fn satisfies(version: &str, operator: Operator, wanted: &str) -> bool {
    let order = compare(version, wanted);
    match operator {
        Operator::Earlier => order.is_lt(),
        Operator::EarlierOrEqual => order.is_le(),
        Operator::Equal => order.is_eq(),
        Operator::LaterOrEqual => order.is_ge(),
        Operator::Later => order.is_gt(),
    }
}

/// `[epoch:]upstream[-revision]`, compared part by part. A missing epoch is 0, a missing revision is empty.
pub fn compare(left: &str, right: &str) -> Ordering {
    if left == right {
        return Ordering::Equal;
    }
    let (left_epoch, left_upstream, left_revision) = split(left);
    let (right_epoch, right_upstream, right_revision) = split(right);
    compare_digits(left_epoch.as_bytes(), right_epoch.as_bytes())
        .then_with(|| compare_part(left_upstream.as_bytes(), right_upstream.as_bytes()))
        .then_with(|| compare_part(left_revision.as_bytes(), right_revision.as_bytes()))
}

fn split(version: &str) -> (&str, &str, &str) {
    let (epoch, rest) = version.split_once(':').unwrap_or(("0", version));
    let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
    (epoch, upstream, revision)
}

/// Alternately a run of non-digits (compared by [`weight`]) and a run of digits (compared as a number).
fn compare_part(mut left: &[u8], mut right: &[u8]) -> Ordering {
    while !left.is_empty() || !right.is_empty() {
        let (left_text, left_rest) = left.split_at(text_length(left));
        let (right_text, right_rest) = right.split_at(text_length(right));
        // The end of a text run weighs 0, as a digit does: more than `~`, less than any other character.
        for at in 0..left_text.len().max(right_text.len()) {
            let order = weight(left_text.get(at)).cmp(&weight(right_text.get(at)));
            if order.is_ne() {
                return order;
            }
        }
        let (left_number, left_rest) = left_rest.split_at(digit_length(left_rest));
        let (right_number, right_rest) = right_rest.split_at(digit_length(right_rest));
        let order = compare_digits(left_number, right_number);
        if order.is_ne() {
            return order;
        }
        (left, right) = (left_rest, right_rest);
    }
    Ordering::Equal
}

fn text_length(bytes: &[u8]) -> usize {
    bytes.iter().position(u8::is_ascii_digit).unwrap_or(bytes.len())
}

fn digit_length(bytes: &[u8]) -> usize {
    bytes.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(bytes.len())
}

/// `~` before the end, the end before letters, letters before everything else.
fn weight(byte: Option<&u8>) -> i32 {
    match byte {
        None => 0,
        Some(b'~') => -1,
        Some(byte) if byte.is_ascii_alphabetic() => i32::from(*byte),
        Some(byte) => i32::from(*byte) + 256,
    }
}

/// Numbers of any length, leading zeros ignored; an empty run is 0.
fn compare_digits(left: &[u8], right: &[u8]) -> Ordering {
    let left = trim_zeros(left);
    let right = trim_zeros(right);
    left.len().cmp(&right.len()).then_with(|| left.cmp(right))
}

fn trim_zeros(digits: &[u8]) -> &[u8] {
    &digits[digits.iter().position(|digit| *digit != b'0').unwrap_or(digits.len())..]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_order_of_the_policy_manual() {
        // Each one is later than the one before; from policy 5.6.12 and the corner cases dpkg documents.
        let ascending = [
            "0~~",
            "0~~a",
            "0~",
            "0",
            "0a",
            "0+",
            "0.1",
            "1.0~beta1~svc1",
            "1.0~beta1",
            "1.0",
            "1.0-0.1",
            "1.0-1~",
            "1.0-1",
            "1.0-1a",
            "1.0-2",
            "1.0a",
            "1.0+b1",
            "1.2.3",
            "1.2.10",
            "9",
            "10",
            "1:0",
            "1:0.1",
            "2:0",
        ];
        for pair in ascending.windows(2) {
            let [earlier, later] = pair else { unreachable!() };
            assert_eq!(compare(earlier, later), Ordering::Less, "{earlier} {later}");
            assert_eq!(compare(later, earlier), Ordering::Greater, "{later} {earlier}");
        }
    }

    #[test]
    fn different_spellings_of_one_version_are_equal() {
        for (left, right) in [("1.0", "0:1.0"), ("1.0", "1.0-0"), ("1.00", "1.0"), ("1.01", "1.1"), ("a", "a0")] {
            assert_eq!(compare(left, right), Ordering::Equal, "{left} {right}");
        }
    }

    #[test]
    fn relations() {
        assert!(satisfies("1.2-1", Operator::LaterOrEqual, "1.2"));
        assert!(!satisfies("1.2~rc1", Operator::LaterOrEqual, "1.2"));
        assert!(satisfies("1.2", Operator::Earlier, "1.2-1"));
        assert!(satisfies("1.2", Operator::Equal, "1.2-0"));
        assert_eq!(Operator::parse(">"), Some(Operator::LaterOrEqual));
        assert_eq!(Operator::parse("=="), None);
    }

    fn dpkg_says(left: &str, right: &str) -> Option<Ordering> {
        let ask = |operator: &str| {
            let status = std::process::Command::new("dpkg")
                .args(["--compare-versions", left, operator, right])
                .stderr(std::process::Stdio::null())
                .status()
                .ok()?;
            Some(status.success())
        };
        Some(match (ask("lt")?, ask("eq")?) {
            (true, _) => Ordering::Less,
            (_, true) => Ordering::Equal,
            _ => Ordering::Greater,
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn agrees_with_dpkg(
            left in "([0-2]:)?[0-9][0-9a.+~]{0,4}(-[0-9a.+~]{1,3})?",
            right in "([0-2]:)?[0-9][0-9a.+~]{0,4}(-[0-9a.+~]{1,3})?",
        ) {
            match dpkg_says(&left, &right) {
                Some(order) => prop_assert_eq!(compare(&left, &right), order, "{} {}", left, right),
                None => eprintln!("skipped: dpkg is not installed"),
            }
        }

        #[test]
        fn is_an_order(a in "[0-9a~.+:-]{0,6}", b in "[0-9a~.+:-]{0,6}", c in "[0-9a~.+:-]{0,6}") {
            prop_assert_eq!(compare(&a, &b), compare(&b, &a).reverse());
            if compare(&a, &b).is_le() && compare(&b, &c).is_le() {
                prop_assert!(compare(&a, &c).is_le());
            }
        }
    }
}
