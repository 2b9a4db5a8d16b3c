//! How amounts are written for people: one way everywhere.
//!
//! Owns: sizes in decimal units (as disks and downloads are sold), durations, padding of tables. What a document or
//! a limit in the code writes in powers of two (`516MiB`) is repeated that way; amounts that were measured come here.

use std::time::Duration;

/// `0 B`, `999 B`, `1.5 kB`, `182 MB`, `1.23 GB`: three significant digits.
pub fn bytes(count: u64) -> String {
    let mut value = count as f64;
    if count < 1000 {
        return format!("{count} B");
    }
    for unit in ["kB", "MB", "GB", "TB", "PB", "EB"] {
        value /= 1000.0;
        // What would round up to 1000 belongs to the next unit.
        if value < 999.5 {
            let digits = if value < 9.995 { 2 } else { usize::from(value < 99.95) };
            return format!("{value:.digits$} {unit}");
        }
    }
    format!("{value:.0} EB")
}

/// `0.3 s`, `42.0 s`, `3 min 05 s`, `1 h 02 min`.
pub fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{:.1} s", time.as_secs_f64()),
        60..3600 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        _ => format!("{} h {:02} min", seconds / 3600, seconds % 3600 / 60),
    }
}

/// Rows of cells as aligned columns, two spaces apart, no trailing blanks, one line a row.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(&format!("{cell:width$}  "));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// A word as a POSIX shell reads it back: as it is where that is safe, else in single quotes.
pub fn shell(word: &str) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "/._-+:,@%=~".contains(letter);
    // A leading `~` would become somebody's home.
    if !word.is_empty() && word.chars().all(plain) && !word.starts_with('~') {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_three_digits() {
        let cases = [(0, "0 B"), (999, "999 B"), (1000, "1.00 kB"), (1536, "1.54 kB"), (182_345_678, "182 MB")];
        for (count, text) in cases {
            assert_eq!(bytes(count), text);
        }
        assert_eq!(bytes(999_600), "1.00 MB");
        assert_eq!(bytes(20_401_094_656), "20.4 GB");
        assert_eq!(bytes(u64::MAX), "18.4 EB");
    }

    #[test]
    fn durations_change_their_unit() {
        assert_eq!(duration(Duration::from_millis(340)), "0.3 s");
        assert_eq!(duration(Duration::from_secs(185)), "3 min 05 s");
        assert_eq!(duration(Duration::from_secs(3725)), "1 h 02 min");
    }

    #[test]
    fn tables_are_aligned_without_trailing_blanks() {
        let rows = [vec!["a".into(), "bcd".into()], vec!["long".into(), String::new()]];
        assert_eq!(table(&rows), "a     bcd\nlong\n");
    }

    #[test]
    fn words_survive_the_shell() {
        assert_eq!(shell("out/control-plane.qcow2"), "out/control-plane.qcow2");
        assert_eq!(shell("my out/a"), "'my out/a'");
        assert_eq!(shell("it's"), "'it'\\''s'");
        assert_eq!([shell(""), shell("~x"), shell("$HOME")], ["''", "'~x'", "'$HOME'"]);
    }
}
