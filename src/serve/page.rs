//! The page of a folder.

use super::files::Item;
use crate::report::words;

/// HTML that needs nothing else.
pub(super) fn page(path: &str, items: &[Item]) -> Vec<u8> {
    let title = escape(path);
    let mut rows = String::new();
    if path != "/" {
        rows.push_str("<tr><td><a href=\"../\">../</a></td><td></td></tr>\n");
    }
    for item in items {
        let slash = if item.size.is_some() { "" } else { "/" };
        let size = item.size.map(words::bytes).unwrap_or_default();
        let (reference, name) = (encode(&item.name), escape(&item.name));
        rows.push_str(&format!(
            "<tr><td><a href=\"./{reference}{slash}\">{name}{slash}</a></td><td class=\"size\">{size}</td></tr>\n"
        ));
    }
    format!(
        "<!DOCTYPE html>
<html lang=\"en\">
<head>
<meta charset=\"utf-8\">
<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">
<title>{title}</title>
<style>
body {{ font-family: sans-serif; margin: 2em; }}
td {{ padding: 0.1em 1.5em 0.1em 0; }}
.size {{ text-align: right; }}
</style>
</head>
<body>
<h1>{title}</h1>
<table>
{rows}</table>
</body>
</html>
"
    )
    .into_bytes()
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            letter => out.push(letter),
        }
    }
    out
}

/// As part of a path of a URI (RFC 3986).
pub(super) fn encode(name: &str) -> String {
    name.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}
