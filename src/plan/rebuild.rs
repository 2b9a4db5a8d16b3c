//! From what an image says about itself back to what it was built from.
//!
//! Owns: [`definition`], which reads the documents and the lock out of `/etc/imagebuilder/meta`, puts secrets back in
//! their places, and makes sure that the result is the definition of that very image. What to produce is said by the
//! caller: the file an image was packed into is no part of its definition, one Tree goes into several.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::intent::Intent;
use super::load::from_documents;
use super::meta::Parsed;
use crate::api::API_VERSION;
use crate::document::{self, Node, Origin};
use crate::error::{Context, Error, Kind, Result};
use crate::package::lock::Lock;

/// How the documents are called in messages.
const NAME: &str = "/etc/imagebuilder/meta";

/// What to do about an image that this program cannot give the same bytes.
pub const ANOTHER_VERSION: &str = "only the version of imagebuilder that built the image can rebuild it; its documents \
    (`imagebuilder inspect --definition`) can be built anew by this one";

/// What an image can be built from again.
#[derive(Debug)]
pub struct Definition {
    pub intent: Intent,
    /// Without evidence: where packages come from has to be found again.
    pub lock: Lock,
}

/// `secrets`: the values that the image left out, by the JSON pointers that [`Parsed::redacted`] lists. `product`: the
/// `spec` of the ImageConfiguration that asks for the image file, as JSON.
pub fn definition(parsed: &Parsed, secrets: &BTreeMap<String, String>, product: &Value) -> Result<Definition> {
    let missing: Vec<&String> = parsed.redacted.iter().filter(|pointer| !secrets.contains_key(*pointer)).collect();
    if !missing.is_empty() {
        return Err(missing_secrets(&missing));
    }
    if let Some(unknown) = secrets.keys().find(|pointer| !parsed.redacted.contains(pointer)) {
        return Err(Error::new(Kind::Usage, format!("the image has no secret `{unknown}`"))
            .hint(format!("it left out: {}", parsed.redacted.join(", "))));
    }
    let mut documents = document::load_str(NAME, &parsed.image)?;
    let [image] = documents.as_mut_slice() else {
        return Err(Error::build("the image's metadata hold more than one AirshipImage"));
    };
    for (pointer, value) in secrets {
        put(image, pointer, value)?;
    }
    let executor = json!({
        "apiVersion": API_VERSION, "kind": "ImageConfiguration", "metadata": {"name": "rebuild"}, "spec": product,
    });
    let executor = document::load_str("rebuild", &executor.to_string())?;
    let intent = from_documents(&documents, executor.first())?;
    if intent.effective_yaml() != parsed.image {
        return Err(not_the_same(parsed, &intent, secrets));
    }
    let lock = Lock::from_hashed_part(NAME, &parsed.lock)
        .map_err(|error| match error.kind() {
            Kind::Drift => error.only_hint(ANOTHER_VERSION),
            _ => error.only_hint("the metadata in the image are damaged: nobody can rebuild it from itself"),
        })
        .context("reading the lock that the image carries")?;
    Ok(Definition { intent, lock })
}

fn missing_secrets(missing: &[&String]) -> Error {
    let files: Vec<&str> = missing.iter().map(|pointer| pointer.trim_start_matches('/')).collect();
    Error::new(Kind::Usage, format!("{} secrets of the image were not given: {}", missing.len(), files.join(", ")))
        .hint("the image does not carry them: give each as a file of that name below `--secrets DIR`")
}

/// RFC 6901: `~1` stands for a slash, `~0` for a tilde.
fn put(image: &mut Node, pointer: &str, value: &str) -> Result<()> {
    let absent = || Error::build(format!("the image's metadata list a secret `{pointer}` that has no place in them"));
    let parts = ["spec", "params"].into_iter().map(str::to_owned);
    let tokens = pointer.split('/').skip(1).map(|token| token.replace("~1", "/").replace("~0", "~"));
    let mut node = image;
    for part in parts.chain(tokens) {
        node = node.as_mapping_mut().and_then(|mapping| mapping.get_mut(&part)).ok_or_else(absent)?;
    }
    *node = Node::string(value, Origin::built("a secret"));
    Ok(())
}

/// The documents were read, and say something else than the image: by a secret that is another one, or by a program
/// that understands them otherwise.
fn not_the_same(parsed: &Parsed, intent: &Intent, secrets: &BTreeMap<String, String>) -> Error {
    let now = intent.effective_yaml();
    let lines = parsed.image.lines().zip(now.lines()).zip(1..);
    let first = lines.into_iter().find(|((then, now), _)| then != now).map_or(0, |(_, number)| number);
    let error =
        Error::new(Kind::Drift, format!("the definition in the image is read as another one, from line {first}"));
    match secrets.is_empty() {
        true => error.hint(ANOTHER_VERSION),
        false => {
            error.hint("what surrounds a secret must be as it was: compare with `imagebuilder inspect --definition`")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::package::lock::tests::package;
    use crate::package::lock::{LockedLayer, asked::Asked};
    use crate::plan::{LockedPlan, locked, meta};

    const IMAGE: &str = "\
apiVersion: airshipit.org/v1alpha1
kind: AirshipImage
metadata: {name: node, labels: {airshipit.org/site: lab}}
spec:
  params:
    distribution:
      name: debian
      release: bookworm
      repositories:
        debian: {source: http://me:pw@mirror/debian, suite: bookworm, keyring: debian-archive, components: {main: {}}}
    software:
      packages: {sudo: {layer: base}}
    users:
      ops: {password: $6$saltsalt$qFmFH.bQmmtXzyBY0s9v7Oicd2z4XSIecDzlB5KiA2/jctKu9YterLp8wwnSq.qc.eoxqOmSuNp2xS0ktL3nh/}
    files:
      /etc/app/key: {file_content: \"line one\\nline two\\n\", permissions: '0600'}
      /etc/motd: {file_content: \"hello\\n\"}
";

    fn product() -> Value {
        json!({"image": {"type": "qcow"}, "params": {"qcowbuilder": {"compression": "zlib"}}})
    }

    /// What an image of these documents carries, and what it was built from.
    fn image() -> (Intent, LockedPlan, Parsed) {
        let documents = document::load_str("site.yaml", IMAGE).unwrap();
        let text = json!({
            "apiVersion": API_VERSION, "kind": "ImageConfiguration", "metadata": {"name": "x"}, "spec": product(),
        });
        let executor = document::load_str("executor", &text.to_string()).unwrap();
        let intent = from_documents(&documents, executor.first()).unwrap();
        let packages = vec![package("sudo", "1.9.13p3-1+deb12u1")];
        let base = LockedLayer { layer: crate::api::params::software::Layer::Base, packages, manual: Vec::new() };
        let mut lock = Lock { architecture: "amd64".into(), epoch: Some(7), layers: vec![base], ..Lock::default() };
        lock.asked = Asked::of(&intent.package_request());
        locked::complete(&mut lock, &intent);
        let plan = LockedPlan::new(&intent, &lock).unwrap();
        let parsed = meta::parse(&plan.metadata).unwrap();
        (intent, plan, parsed)
    }

    fn secrets() -> BTreeMap<String, String> {
        let secrets = [
            ("/distribution/repositories/debian/source", "http://me:pw@mirror/debian"),
            ("/files/~1etc~1app~1key/file_content", "line one\nline two\n"),
            (
                "/users/ops/password",
                "$6$saltsalt$qFmFH.bQmmtXzyBY0s9v7Oicd2z4XSIecDzlB5KiA2/jctKu9YterLp8wwnSq.qc.eoxqOmSuNp2xS0ktL3nh/",
            ),
        ];
        secrets.into_iter().map(|(pointer, value)| (pointer.to_owned(), value.to_owned())).collect()
    }

    #[test]
    fn an_image_says_what_it_was_built_from() {
        let (intent, plan, parsed) = image();
        assert_eq!(parsed.redacted, secrets().into_keys().collect::<Vec<_>>());
        let found = definition(&parsed, &secrets(), &product()).unwrap();
        assert_eq!(found.intent.site, "lab");
        assert_eq!(found.intent, intent);
        // The same steps, hence the same bytes.
        assert_eq!(LockedPlan::new(&found.intent, &found.lock).unwrap(), plan);
    }

    #[test]
    fn a_missing_secret_is_named() {
        let (_, _, parsed) = image();
        let mut some = secrets();
        some.remove("/users/ops/password");
        let error = definition(&parsed, &some, &product()).unwrap_err();
        assert_eq!(error.kind(), Kind::Usage);
        assert!(error.to_string().ends_with("users/ops/password"), "{error}");
        let mut more = secrets();
        more.insert("/users/eve/password".into(), "x".into());
        assert!(definition(&parsed, &more, &product()).unwrap_err().to_string().contains("no secret `/users/eve"));
    }

    #[test]
    fn a_secret_cannot_change_what_surrounds_it() {
        let (_, _, parsed) = image();
        let mut other = secrets();
        other.insert("/distribution/repositories/debian/source".into(), "http://me:pw@elsewhere/debian".into());
        let error = definition(&parsed, &other, &product()).unwrap_err();
        assert_eq!(error.kind(), Kind::Drift);
    }

    #[test]
    fn hostile_metadata_is_an_error() {
        let (_, _, good) = image();
        for (from, to) in [("kind: AirshipImage", "kind: Else"), ("params:", "parms:"), ("bookworm", "bo")] {
            let parsed = Parsed { image: good.image.replace(from, to), ..good.clone() };
            assert!(definition(&parsed, &secrets(), &product()).is_err(), "{to}");
        }
        let parsed = Parsed { lock: "lockVersion: 1\n".into(), ..good.clone() };
        let error = definition(&parsed, &secrets(), &product()).unwrap_err();
        assert_eq!((error.kind(), error.hints()), (Kind::Drift, &[ANOTHER_VERSION.to_owned()][..]));
        let mut parsed = good;
        parsed.redacted = vec!["/users/nobody/password".into()];
        let wrong = BTreeMap::from([("/users/nobody/password".to_owned(), "x".to_owned())]);
        assert!(definition(&parsed, &wrong, &product()).unwrap_err().to_string().contains("has no place"));
    }
}
