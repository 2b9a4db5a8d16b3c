//! Resources at an address: `https://host/file.yaml?sha256=DIGEST`.
//!
//! Owns: [`Remote`], [`Fetch`]. They are refused unless the caller hands in a way to fetch them, and always unless a
//! digest of their bytes pins them: what is built must not depend on what a server gives today. What was fetched is
//! hashed here; the rest of the query goes to the server.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::document::{Diagnostic, Loaded, Loader, Node};
use crate::error::{Context, Error, Kind, Result};

/// Gets the bytes at an address. It bounds time and size itself.
pub type Fetch = Arc<dyn Fn(&str) -> Result<Vec<u8>> + Send + Sync>;

const PIN: &str = "sha256=";

/// An address and the digest its bytes must have.
#[derive(Debug, PartialEq, Eq)]
pub struct Remote {
    pub url: String,
    /// 64 small hexadecimal digits.
    pub digest: String,
}

/// Whether an entry names something elsewhere: a file behind HTTP, or a repository as kustomize writes those.
pub fn is_remote(text: &str) -> bool {
    ["://", "?ref=", "git::"].iter().any(|mark| text.contains(mark))
        || ["git@", "gh:", "github.com/", "github.com:"].iter().any(|start| text.starts_with(start))
}

/// Why an entry is refused where nothing may be fetched.
pub fn refusal(entry: &Node, text: &str) -> Error {
    Diagnostic::on(entry, format!("remote resource `{text}`"))
        .hint("builds do not depend on what a server gives today: keep a copy in the repository")
        .hint("`render --allow-remote` fetches files that a digest pins: `https://host/file.yaml?sha256=DIGEST`")
        .into()
}

impl Remote {
    fn of(entry: &Node, text: &str) -> Result<Remote> {
        let refuse = |why: &str| -> Result<Remote> {
            Err(Diagnostic::on(entry, format!("remote resource `{text}`: {why}"))
                .hint("a file and the digest of its bytes: `https://host/file.yaml?sha256=DIGEST` (of `sha256sum`)")
                .into())
        };
        let web = text.starts_with("https://") || text.starts_with("http://");
        if !web || text.contains("?ref=") || text.contains("&ref=") {
            return refuse("only files behind `https:` and `http:` are fetched, no repositories");
        }
        let (address, query) = text.split_once('?').unwrap_or((text, ""));
        let (pins, rest): (Vec<&str>, Vec<&str>) =
            query.split('&').filter(|part| !part.is_empty()).partition(|part| part.starts_with(PIN));
        let [pin] = pins[..] else {
            return refuse(if pins.is_empty() { "no digest pins it" } else { "more than one digest" });
        };
        let digest = pin[PIN.len()..].to_ascii_lowercase();
        if digest.len() != 64 || !digest.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return refuse("the digest is not 64 hexadecimal digits");
        }
        let question = if rest.is_empty() { "" } else { "?" };
        Ok(Remote { url: format!("{address}{question}{}", rest.join("&")), digest })
    }
}

/// The documents that an entry names elsewhere.
pub fn load(entry: &Node, fetch: Option<&Fetch>) -> Result<Loaded> {
    let text = entry.text().unwrap_or_default();
    let Some(fetch) = fetch else { return Err(refusal(entry, text)) };
    let remote = Remote::of(entry, text)?;
    let bytes = fetch(&remote.url).with_context(|| format!("{}: fetching {}", entry.origin.at, remote.url))?;
    let found = format!("{:x}", Sha256::digest(&bytes));
    if found != remote.digest {
        let message = format!("{}: {} is not what the digest says", entry.origin.at, remote.url);
        return Err(Error::new(Kind::Authenticity, message)
            .hint(format!("expected sha256 {}, found {found}", remote.digest))
            .hint("look at what changed there before you pin the new digest"));
    }
    Loader::default().text(&remote.url, &bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::Origin;

    fn entry(text: &str) -> Node {
        Node::string(text, Origin::built("kustomization.yaml"))
    }

    fn pinned(bytes: &[u8]) -> Node {
        entry(&format!("https://host/a.yaml?x=1&sha256={:x}&y=2", Sha256::digest(bytes)))
    }

    #[test]
    fn a_pinned_file_is_fetched_without_its_pin() {
        let fetch: Fetch = Arc::new(|url| {
            assert_eq!(url, "https://host/a.yaml?x=1&y=2");
            Ok(b"kind: A\n".to_vec())
        });
        let loaded = load(&pinned(b"kind: A\n"), Some(&fetch)).unwrap();
        assert_eq!(loaded.documents[0].get("kind").and_then(Node::text), Some("A"));
        assert_eq!(loaded.source.name(), "https://host/a.yaml?x=1&y=2");
    }

    #[test]
    fn other_bytes_are_not_authentic() {
        let fetch: Fetch = Arc::new(|_| Ok(b"kind: B\n".to_vec()));
        assert_eq!(load(&pinned(b"kind: A\n"), Some(&fetch)).unwrap_err().kind(), Kind::Authenticity);
    }

    #[test]
    fn what_is_not_pinned_or_not_allowed_is_never_fetched() {
        let fetch: Fetch = Arc::new(|url| panic!("{url} is fetched"));
        assert!(load(&pinned(b""), None).unwrap_err().to_string().contains("remote resource"));
        let cases = [
            ("https://host/a.yaml", "no digest pins it"),
            ("https://host/a.yaml?sha256=12", "64 hexadecimal digits"),
            ("https://github.com/a/b?ref=main", "no repositories"),
            ("git@host:a/b", "no repositories"),
        ];
        for (text, why) in cases {
            let error = load(&entry(text), Some(&fetch)).unwrap_err().to_string();
            assert!(is_remote(text) && error.contains(why), "{text}: {error}");
        }
    }
}
