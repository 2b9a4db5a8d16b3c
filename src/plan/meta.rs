//! `/etc/imagebuilder/meta`: what an image says about itself, so that it can be rebuilt from itself.
//!
//! Owns: [`bytes`] and [`parse`] (the format is described in `docs/reference/meta.md`), and [`redact`], which takes
//! secrets out of the parameters before they are written down: the file is readable for everybody on the node, so it
//! must not tell what the rest of the image does not. Nothing here depends on clock, host or order of work.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use regex::Regex;

use crate::api::Params;
use crate::error::{Error, Result};
use crate::tree::Digest;

/// Version of the format.
const VERSION: u32 = 1;
/// Stands where a secret was.
pub const REDACTED: &str = "[redacted]";

/// What goes into the file. The two texts are YAML documents without secrets and without positions.
pub struct Contents<'a> {
    /// Name of the image.
    pub name: &'a str,
    /// Version of the program.
    pub builder: &'a str,
    /// `SOURCE_DATE_EPOCH` of the build.
    pub epoch: i64,
    /// The effective AirshipImage, redacted.
    pub image: &'a str,
    /// The hashed part of the lock.
    pub lock: &'a str,
    /// The values that [`redact`] took out.
    pub redacted: &'a [String],
}

/// What [`parse`] finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parsed {
    pub header: BTreeMap<String, String>,
    pub redacted: Vec<String>,
    pub image: String,
    pub lock: String,
}

/// The bytes of the file.
pub fn bytes(contents: &Contents) -> Result<Vec<u8>> {
    let (image, lock) = (document("the AirshipImage", contents.image)?, document("the lock", contents.lock)?);
    let mut text = format!(
        "# What this image was built from; see imagebuilder's reference, page `meta`.\n\
         metaVersion: {VERSION}\nbuilder: {}\nname: {}\nepoch: {}\nimageDigest: sha256:{}\nlockDigest: sha256:{}\n",
        quoted(contents.builder),
        quoted(contents.name),
        contents.epoch,
        Digest::of(image.as_bytes()),
        Digest::of(lock.as_bytes()),
    );
    if !contents.redacted.is_empty() {
        text += "redacted:\n";
        for path in contents.redacted {
            text += &format!("- {}\n", quoted(path));
        }
    }
    Ok((text + "---\n" + &image + "---\n" + &lock).into_bytes())
}

/// Takes a file apart again and compares the digests.
pub fn parse(bytes: &[u8]) -> Result<Parsed> {
    let broken = |why: &str| Error::build(format!("the image's metadata cannot be read: {why}"));
    let text = std::str::from_utf8(bytes).map_err(|_| broken("it is not UTF-8 text"))?;
    let mut documents = vec![String::new()];
    for line in text.split_inclusive('\n') {
        match documents.last_mut() {
            Some(last) if line != "---\n" => last.push_str(line),
            _ => documents.push(String::new()),
        }
    }
    let [head, image, lock] = documents.try_into().map_err(|_| broken("it does not hold three documents"))?;
    let (mut header, mut redacted) = (BTreeMap::new(), Vec::new());
    for line in head.lines().filter(|line| !line.starts_with('#')) {
        if let Some(path) = line.strip_prefix("- ") {
            redacted.push(unquoted(path));
        } else if let Some((key, value)) = line.split_once(':') {
            header.insert(key.to_owned(), unquoted(value.trim()));
        }
    }
    if header.get("metaVersion").map(String::as_str) != Some("1") {
        return Err(broken("its version is not 1"));
    }
    for (key, text) in [("imageDigest", &image), ("lockDigest", &lock)] {
        if header.get(key) != Some(&format!("sha256:{}", Digest::of(text.as_bytes()))) {
            return Err(broken(&format!("`{key}` does not fit")));
        }
    }
    Ok(Parsed { header, redacted, image, lock })
}

/// One YAML document, without a marker in front, with a line break at its end.
fn document(what: &str, text: &str) -> Result<String> {
    let body = text.strip_prefix("---\n").unwrap_or(text);
    if body.lines().any(|line| line.starts_with("---") || line.starts_with("...")) {
        return Err(Error::build(format!("{what} is not one YAML document")));
    }
    Ok(if body.ends_with('\n') { body.to_owned() } else { format!("{body}\n") })
}

/// A YAML double-quoted scalar; JSON strings are such.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn unquoted(text: &str) -> String {
    serde_json::from_str(text).unwrap_or_else(|_| text.to_owned())
}

/// Takes secrets out of the parameters; tells which values it touched (JSON pointers below `params`, sorted).
///
/// Secrets are: password hashes; the content of files that others may not read; private keys; values behind words such
/// as `password` or `token` in files, units and cloud-init configuration; user names and passwords in addresses.
pub fn redact(params: &mut Params) -> Vec<String> {
    let mut touched = Vec::new();
    let mut note = |parts: &[&str]| {
        touched.push(parts.iter().map(|key| format!("/{}", key.replace('~', "~0").replace('/', "~1"))).collect());
    };
    for (name, user) in &mut params.users {
        if user.password.is_some() {
            user.password = Some(REDACTED.into());
            note(&["users", name, "password"]);
        }
    }
    for (path, file) in &mut params.files {
        let hidden = file.permissions.is_some_and(|mode| mode.0 & 0o004 == 0);
        if let Some(text) = &mut file.file_content {
            if hidden {
                *text = REDACTED.into();
                note(&["files", path, "file_content"]);
            } else if redact_text(text) {
                note(&["files", path, "file_content"]);
            }
        }
        if hidden && file.file_content_base64.is_some() {
            // An empty content is still valid base64.
            file.file_content_base64 = Some(String::new());
            note(&["files", path, "file_content_base64"]);
        }
    }
    for (name, unit) in &mut params.systemd {
        if unit.file_content.as_mut().is_some_and(redact_text) {
            note(&["systemd", name, "file_content"]);
        }
        for (drop_in, text) in &mut unit.drop_ins {
            if redact_text(text) {
                note(&["systemd", name, "dropIns", drop_in]);
            }
        }
    }
    for (name, text) in &mut params.cloud_init.config {
        if redact_text(text) {
            note(&["cloudInit", "config", name]);
        }
    }
    if params.kubernetes.containerd.config.as_mut().is_some_and(redact_text) {
        note(&["kubernetes", "containerd", "config"]);
    }
    for (name, value) in &mut params.kubernetes.kubelet.extra_systemd_args {
        if SECRET_WORD.is_match(name) {
            value.0 = REDACTED.into();
            note(&["kubernetes", "kubelet", "extra_systemd_args", name]);
        }
    }
    for (name, repository) in &mut params.distribution.repositories {
        if redact_text(&mut repository.source) {
            note(&["distribution", "repositories", name, "source"]);
        }
        if repository.registered_source.as_mut().is_some_and(redact_text) {
            note(&["distribution", "repositories", name, "registeredSource"]);
        }
    }
    touched.sort();
    touched
}

fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("a pattern of our own is well formed")
}

static SECRET_WORD: LazyLock<Regex> = LazyLock::new(|| pattern("(?i)(passw|secret|token|api[_-]?key|credential)"));
/// A word that ends in one of the names, a separator, and a value on the same line.
static ASSIGNMENT: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r#"(?im)((?:password|passwd|passphrase|secret|token|api[_-]?key|credentials?|auth)["']?[ \t]*[:=][ \t]*)(\S.*)$"#,
    )
});
static PRIVATE_KEY: LazyLock<Regex> = LazyLock::new(|| {
    pattern(r"(?s)-----BEGIN [A-Z ]*PRIVATE KEY( BLOCK)?-----.*?(-----END [A-Z ]*PRIVATE KEY( BLOCK)?-----|\z)")
});
static USER_INFO: LazyLock<Regex> = LazyLock::new(|| pattern(r#"://[^/\s@"']+@"#));

/// Tells whether something was taken out.
fn redact_text(text: &mut String) -> bool {
    // Lists of passwords have no telling word on their own lines.
    if text.contains("chpasswd") {
        *text = REDACTED.into();
        return true;
    }
    let harmless = |value: &str| {
        let value = value.trim().trim_matches(['"', '\'', ',']);
        ["", "true", "false", "yes", "no", "on", "off", "null", "~", "|", ">", REDACTED].contains(&value)
    };
    let one = PRIVATE_KEY.replace_all(text, REDACTED);
    let two = USER_INFO.replace_all(&one, format!("://{REDACTED}@"));
    let three = ASSIGNMENT.replace_all(&two, |found: &regex::Captures| {
        if harmless(&found[2]) { found[0].to_owned() } else { format!("{}{REDACTED}", &found[1]) }
    });
    if *three == *text {
        return false;
    }
    *text = three.into_owned();
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents<'a>(redacted: &'a [String]) -> Contents<'a> {
        let (image, lock) = ("---\nkind: AirshipImage\ntext: |\n  --- x\n  a---\n", "lockVersion: 1\nlayers: []");
        Contents { name: "data-plane", builder: "imagebuilder 0.1.0", epoch: 7, image, lock, redacted }
    }

    #[test]
    fn what_is_written_is_read() {
        let redacted = vec!["/users/ops/password".to_owned()];
        let bytes = bytes(&contents(&redacted)).unwrap();
        let parsed = parse(&bytes).unwrap();
        assert_eq!(parsed.header["name"], "data-plane");
        assert_eq!(parsed.redacted, redacted);
        assert_eq!(parsed.image, "kind: AirshipImage\ntext: |\n  --- x\n  a---\n");
        assert_eq!(parsed.lock, "lockVersion: 1\nlayers: []\n");
        let mut damaged = bytes.clone();
        let last = damaged.len() - 2;
        damaged[last] = b'x';
        assert!(parse(&damaged).unwrap_err().to_string().contains("lockDigest"));
        assert!(parse(b"").is_err() && parse(&[0xff]).is_err());
    }

    #[test]
    fn two_documents_in_one_are_refused() {
        let mut two = contents(&[]);
        two.lock = "a: 1\n---\nb: 2\n";
        assert!(bytes(&two).is_err());
    }

    #[test]
    fn secrets_are_taken_out_and_named() {
        let secret = "Tr0ub4dor";
        let value = serde_json::json!({
            "users": {"ops": {"password": format!("$6${secret}")}, "zed": {}},
            "files": {
                "/etc/a": {"file_content": secret, "permissions": "0600"},
                "/etc/b": {"file_content": format!("x = 1\ndb_password = {secret}\nlock_passwd: true\n")},
                "/etc/c": {"file_content": format!("-----BEGIN RSA PRIVATE KEY-----\n{secret}\n-----END RSA PRIVATE KEY-----\n")},
                "/etc/d": {"file_content": "plain\n"}},
            "systemd": {"x.service": {"dropIns": {"env": format!("[Service]\nEnvironment=API_TOKEN={secret}\n")}}},
            "cloudInit": {"config": {"pw": format!("chpasswd:\n  list: |\n    root:{secret}\n"), "ok": "ssh_pwauth: false\n"}},
            "kubernetes": {"kubelet": {"extra_systemd_args": {"bootstrap-token": secret, "max-pods": "9"}}},
            "distribution": {"repositories": {"r": {"source": format!("http://me:{secret}@host/x"), "suite": "s", "keyring": "k"}}}
        });
        let mut params: Params = serde_json::from_value(value).unwrap();
        let touched = redact(&mut params);
        let left = serde_json::to_string(&params).unwrap();
        assert!(!left.contains(secret), "{left}");
        assert_eq!(
            touched,
            [
                "/cloudInit/config/pw",
                "/distribution/repositories/r/source",
                "/files/~1etc~1a/file_content",
                "/files/~1etc~1b/file_content",
                "/files/~1etc~1c/file_content",
                "/kubernetes/kubelet/extra_systemd_args/bootstrap-token",
                "/systemd/x.service/dropIns/env",
                "/users/ops/password",
            ]
        );
        assert!(params.files["/etc/b"].file_content.as_deref().unwrap().ends_with("lock_passwd: true\n"));
        assert_eq!(params.distribution.repositories["r"].source, "http://[redacted]@host/x");
        assert_eq!(redact(&mut params.clone()).len(), 3, "only what is taken out unseen is named again");
    }
}
