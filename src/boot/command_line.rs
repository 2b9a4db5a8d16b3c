//! The kernel command line: `kernel.commandLine` as words, and how GRUB and `/etc/default/grub` quote them.
//!
//! Owns: [`words`] and the two quotings. Order and duplicates are kept: the kernel reads `console=` twice and pairs
//! `hugepagesz=` with the `hugepages=` that follows.

use crate::api::params::kernel::Argument;
use crate::error::{Error, Kind, Result};

/// `COMMAND_LINE_SIZE` of x86 is 2048 with the closing NUL; GRUB puts `BOOT_IMAGE=`, `root=` and `ro` before ours.
const MAX_LENGTH: usize = 1800;

/// The command line word by word, checked to survive GRUB.
pub fn words(arguments: &[Argument]) -> Result<Vec<String>> {
    let words = arguments.iter().map(word).collect::<Result<Vec<_>>>()?;
    let length: usize = words.iter().map(|word| word.len() + 1).sum();
    if length > MAX_LENGTH {
        return Err(Error::new(
            Kind::Documents,
            format!("`kernel.commandLine` has {length} characters, the kernel takes {MAX_LENGTH}"),
        ));
    }
    Ok(words)
}

fn word(argument: &Argument) -> Result<String> {
    let name = &argument.name;
    let refuse = |what: &str| {
        Error::new(Kind::Documents, format!("`kernel.commandLine` entry `{}` {what}", name.escape_default()))
    };
    if name.is_empty() || name.chars().any(|c| c.is_whitespace() || c == '=') {
        return Err(refuse("needs a name without blanks or `=`").hint("put what follows the `=` into `value`"));
    }
    let word = match &argument.value {
        Some(value) => format!("{name}={value}"),
        None => name.clone(),
    };
    if word.chars().any(char::is_control) {
        return Err(refuse("has a control character in it"));
    }
    if word.contains(['"', '\'', '\\']) {
        return Err(refuse("has a quote or backslash in it, which GRUB would change")
            .hint("leave the quotes out: a value with blanks is quoted for the kernel by GRUB"));
    }
    Ok(word)
}

/// As written in `grub.cfg`. GRUB's lexer takes single quotes literally, and its Linux loader quotes words with blanks
/// again for the kernel.
pub fn for_grub(words: &[String]) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_=,.:/@%+-".contains(c);
    let quoted: Vec<String> =
        words.iter().map(|word| if word.chars().all(plain) { word.clone() } else { format!("'{word}'") }).collect();
    quoted.join(" ")
}

/// A double-quoted word of sh(1), as `/etc/default/grub` wants it.
pub fn for_shell(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        if matches!(c, '"' | '\\' | '$' | '`') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn argument(name: &str, value: Option<&str>) -> Argument {
        Argument { name: name.into(), value: value.map(Into::into) }
    }

    #[test]
    fn keeps_order_and_duplicates() {
        let line = [
            argument("console", Some("ttyS0,115200n8")),
            argument("console", Some("tty0")),
            argument("quiet", None),
            argument("hugepagesz", Some("1G")),
        ];
        let words = words(&line).unwrap();
        assert_eq!(for_grub(&words), "console=ttyS0,115200n8 console=tty0 quiet hugepagesz=1G");
    }

    #[test]
    fn quotes_what_grub_or_the_shell_would_read() {
        let words = words(&[argument("dyndbg", Some("file a.c +p; $x"))]).unwrap();
        assert_eq!(for_grub(&words), "'dyndbg=file a.c +p; $x'");
        assert_eq!(for_shell(&for_grub(&words)), "\"'dyndbg=file a.c +p; \\$x'\"");
    }

    #[test]
    fn refuses_what_would_not_arrive() {
        for bad in
            [argument("a=b", None), argument("", None), argument("a", Some("\"x\"")), argument("a", Some("x\ny"))]
        {
            assert_eq!(words(&[bad]).unwrap_err().kind(), Kind::Documents);
        }
        assert!(words(&[argument("a", Some(&"x".repeat(2000)))]).is_err());
    }
}
