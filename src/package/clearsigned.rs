//! Text in the cleartext signature framework (RFC 9580 section 7), taken apart.
//!
//! Owns: [`ClearSigned`]. Whether a signature is good is [`keyring`](super::keyring)'s. Stricter than the standard where
//! that keeps out what a reader could take for signed: nothing may stand before the first line or behind the last, there
//! is one signature block, and a carriage return belongs to the end of a line.

const HEADER: &str = "-----BEGIN PGP SIGNED MESSAGE-----";
const SIGNATURE: &str = "-----BEGIN PGP SIGNATURE-----";
const END: &str = "-----END PGP SIGNATURE-----";
const MARK: &str = "-----";

/// A message whose signatures nobody has looked at yet.
#[derive(Debug, PartialEq, Eq)]
pub struct ClearSigned<'a> {
    /// What is signed, with `\r\n` between its lines (section 7.2): dashes unescaped, without blanks at ends of lines.
    pub text: String,
    /// The armored signatures.
    pub signatures: &'a str,
}

impl<'a> ClearSigned<'a> {
    /// Takes a message apart, in one pass over its lines; or says what is wrong with its form.
    pub fn parse(message: &'a str) -> Result<Self, &'static str> {
        let start = message.len() - message.trim_ascii_start().len();
        let mut offset = start;
        let mut lines = message[start..].split_inclusive('\n').map(|whole| {
            let at = offset;
            offset += whole.len();
            (at, ending_cut(whole))
        });
        if lines.next().is_none_or(|(_, line)| line.trim_ascii_end() != HEADER) {
            return Err("it does not begin with the line of a signed message");
        }
        loop {
            match lines.next() {
                Some((_, "")) => break,
                // The only header there may be (section 7.1).
                Some((_, line)) if line.starts_with("Hash: ") => {}
                _ => return Err("after its first line stands neither a header `Hash` nor an empty line"),
            }
        }
        let mut text = String::with_capacity(message.len());
        let mut first = true;
        for (at, line) in lines {
            if line.starts_with(MARK) {
                let signatures = &message[at..];
                return match line.trim_ascii_end() {
                    SIGNATURE => is_one_block(signatures).map(|()| ClearSigned { text, signatures }),
                    _ => Err("its text has a line of dashes that is not escaped"),
                };
            }
            if line.contains('\r') {
                return Err("its text has a carriage return inside a line");
            }
            if !std::mem::take(&mut first) {
                text.push_str("\r\n");
            }
            text.push_str(line.strip_prefix("- ").unwrap_or(line).trim_end_matches([' ', '\t']));
        }
        Err("it ends before its signature")
    }

    /// What is signed, with plain line ends.
    pub fn plain_text(&self) -> String {
        self.text.replace("\r\n", "\n")
    }
}

fn ending_cut(line: &str) -> &str {
    line.strip_suffix("\r\n").or_else(|| line.strip_suffix('\n')).unwrap_or(line)
}

fn is_one_block(signatures: &str) -> Result<(), &'static str> {
    let mut lines = signatures.lines().skip(1).skip_while(|line| !line.starts_with(MARK));
    match lines.next() {
        Some(line) if line.trim_ascii_end() == END => {}
        _ => return Err("its signature has no end"),
    }
    if lines.all(|line| line.trim_ascii().is_empty()) { Ok(()) } else { Err("something stands behind its signature") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str) -> String {
        format!("{HEADER}\nHash: SHA512\n\n{text}{SIGNATURE}\n\nabc\n{END}\n")
    }

    #[test]
    fn what_is_signed_comes_out() {
        for (text, expected) in [
            ("a\nb\n", "a\r\nb"),
            ("a\r\nb\r\n", "a\r\nb"),
            ("\n\na \t\n- -b\n-c\n\n", "\r\n\r\na\r\n-b\r\n-c\r\n"),
            ("- -----BEGIN PGP SIGNATURE-----\n", SIGNATURE),
            ("", ""),
        ] {
            let message = message(text);
            let parsed = ClearSigned::parse(&message).unwrap();
            assert_eq!(parsed.text, expected, "{text:?}");
            assert!(parsed.signatures.starts_with(SIGNATURE));
            assert_eq!(parsed.plain_text(), expected.replace('\r', ""));
        }
        let around = format!("\n {}\r\n\n", message("a\n").replace('\n', "\r\n"));
        assert_eq!(ClearSigned::parse(&around).unwrap().text, "a");
    }

    #[test]
    fn other_forms_are_refused() {
        let good = message("a\n");
        for (bad, reason) in [
            (String::new(), "begin"),
            (format!("forged\n{good}"), "begin"),
            (format!("{good}forged\n"), "behind"),
            (format!("{good}{good}"), "behind"),
            (good.replace("Hash: ", "Comment: "), "neither"),
            (good.replace("SHA512\n\n", "SHA512\n \n"), "neither"),
            (good.replace("SHA512\n\n", "SHA512\n"), "neither"),
            (good.replace(SIGNATURE, "-----BEGIN OTHER-----"), "not escaped"),
            (good.replace("a\n", "a\rb\n"), "carriage"),
            (good.replace(END, ""), "no end"),
            (good.split(SIGNATURE).next().unwrap().to_owned(), "ends before"),
        ] {
            let error = ClearSigned::parse(&bad).unwrap_err();
            assert!(error.contains(reason), "{bad}: {error}");
        }
    }

    /// A library that looked for the end in all of the text after each line took hours for such a message.
    #[test]
    fn long_messages_take_time_in_proportion() {
        let parsed = message(&"a\n".repeat(1 << 20));
        assert_eq!(ClearSigned::parse(&parsed).unwrap().text.len(), 3 * (1 << 20) - 2);
    }
}
