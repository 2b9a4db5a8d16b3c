//! The order of mapping keys in output: the natural order that YAML writers around Kubernetes use.
//!
//! Owns: [`sort_by_key`]. Letters compare by code point and come after everything that is not a letter; runs of
//! digits compare as numbers.

use std::cmp::Ordering;

/// Sorts by a text, in natural order.
///
/// The relation is not transitive for odd mixtures of punctuation and digits, which the standard sort may answer
/// with a panic; this one only ever gives some order.
pub fn sort_by_key<T>(items: &mut [T], key: impl Fn(&T) -> &str + Copy) {
    let count = items.len();
    let texts: Vec<Vec<char>> = items.iter().map(|item| key(item).chars().collect()).collect();
    let mut order: Vec<usize> = (0..count).collect();
    merge_sort(&mut order, &|a, b| compare(&texts[a], &texts[b]));
    // Apply the permutation in place: `order[i]` is where the item at `i` comes from.
    for start in 0..count {
        let mut from = order[start];
        while from < start {
            from = order[from];
        }
        items.swap(start, from);
    }
}

fn merge_sort(order: &mut [usize], compare: &impl Fn(usize, usize) -> Ordering) {
    if order.len() <= 12 {
        for end in 1..order.len() {
            for at in (1..=end).rev() {
                if compare(order[at], order[at - 1]) != Ordering::Less {
                    break;
                }
                order.swap(at, at - 1);
            }
        }
        return;
    }
    let middle = order.len() / 2;
    merge_sort(&mut order[..middle], compare);
    merge_sort(&mut order[middle..], compare);
    let (left, right) = (order[..middle].to_vec(), order[middle..].to_vec());
    let (mut l, mut r) = (left.iter().peekable(), right.iter().peekable());
    for slot in order {
        let take_right = match (l.peek(), r.peek()) {
            (Some(&&a), Some(&&b)) => compare(b, a) == Ordering::Less,
            (None, _) => true,
            _ => false,
        };
        let next = if take_right { r.next() } else { l.next() };
        *slot = *next.expect("both halves together have as many items as there are slots");
    }
}

fn compare(a: &[char], b: &[char]) -> Ordering {
    let Some(at) = a.iter().zip(b).position(|(a, b)| a != b) else {
        return a.len().cmp(&b.len());
    };
    match (a[at].is_alphabetic(), b[at].is_alphabetic()) {
        (true, true) => a[at].cmp(&b[at]),
        (true, false) => Ordering::Greater,
        (false, true) => Ordering::Less,
        (false, false) => {
            let lead = leading_one(a, at, a[at] == '0' || b[at] == '0');
            let (a_value, a_end) = number(&a[at..], lead);
            let (b_value, b_end) = number(&b[at..], lead);
            a_value.cmp(&b_value).then(a_end.cmp(&b_end)).then(a[at].cmp(&b[at]))
        }
    }
}

/// Where a zero starts the difference, digits before it that are not zeros make it count as a digit of a number.
fn leading_one(text: &[char], at: usize, zero: bool) -> u64 {
    let before = text[..at].iter().rev().take_while(|c| c.is_numeric());
    u64::from(zero && before.into_iter().any(|c| *c != '0'))
}

/// The number that a run of digits stands for and the length of the run.
fn number(text: &[char], lead: u64) -> (u64, usize) {
    let digits = text.iter().take_while(|c| c.is_ascii_digit());
    digits.fold((lead, 0), |(value, length), digit| {
        let digit = u64::from(*digit as u32 - '0' as u32);
        (value.saturating_mul(10).saturating_add(digit), length + 1)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn natural_order() {
        let expected = ["1", "2", "9", "10", "A", "B", "a b", "a1", "a1-", "a10", "a1b", "b1", "b01", "b9", "b10"];
        let mut keys: Vec<&str> = expected.iter().rev().copied().collect();
        sort_by_key(&mut keys, |key| key);
        assert_eq!(keys, expected);
    }

    #[test]
    fn long_lists_come_out_in_order() {
        let expected: Vec<String> = (0..500).map(|number| format!("key{number}")).collect();
        let mut keys: Vec<String> = (0..500).map(|number| format!("key{}", (number * 7) % 500)).collect();
        sort_by_key(&mut keys, |key| key);
        assert_eq!(keys, expected);
    }
}
