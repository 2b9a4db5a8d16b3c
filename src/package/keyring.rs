//! OpenPGP keyrings, and whose signatures over a text are good (RFC 9580).
//!
//! Owns: [`Keyring`]: where keys come from, and which of them may sign an index. A key counts when it is not
//! revoked, not expired at the time of the run and allowed to sign; a subkey also needs a binding by its primary key
//! and the other way round. Signatures over MD5, SHA-1 or RIPEMD-160 never count. Everything in a keyring is
//! trusted; what is between the keys (third-party signatures) is ignored.

use std::io::Read;
use std::path::Path;

use pgp::composed::{Deserializable, DetachedSignature, SignedPublicKey, SignedPublicSubKey};
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{Signature, SignatureType};
use pgp::ser::Serialize;
use pgp::types::{PublicKeyTrait, Tag};

use super::clearsigned::ClearSigned;
use crate::error::{Context, Error, Kind, Result};

const ARMOR: &str = "-----BEGIN PGP PUBLIC KEY BLOCK-----";

/// The keyrings that come with the program.
const SHIPPED: [(&str, &str); 2] = [
    ("debian-archive", include_str!("../../functions/keyrings/debian-archive.asc")),
    ("ubuntu-archive", include_str!("../../functions/keyrings/ubuntu-archive.asc")),
];

/// A keyring file larger than this is not one.
const FILE_LIMIT: u64 = 4 << 20;

/// An index is signed by a few keys; looking at a signature takes time.
const SIGNATURES: usize = 64;

/// How far the clock of the archive may be ahead of ours.
pub const CLOCK_SLACK: i64 = 24 * 60 * 60;

#[derive(Debug, Clone)]
pub struct Keyring {
    /// For messages: a name or a path.
    name: String,
    keys: Vec<SignedPublicKey>,
}

/// Text whose signature was found good.
#[derive(Debug, Clone)]
pub struct Verified {
    /// Exactly what was signed, with plain line ends.
    pub text: String,
    /// Fingerprint of the key that signed, in capitals.
    pub signed_by: String,
}

/// The bytes of a keyring that a repository names by its path.
pub fn read_file(path: &Path) -> Result<Vec<u8>> {
    let file = match std::fs::File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::documents("there is no such file")
                .hint("install the package that brings the keyring, or correct `keyring` of the repository"));
        }
        opened => opened.context("opening it")?,
    };
    let mut bytes = Vec::new();
    file.take(FILE_LIMIT + 1).read_to_end(&mut bytes).context("reading it")?;
    if bytes.len() as u64 > FILE_LIMIT {
        return Err(Error::documents(format!("it is larger than {} MiB, which no keyring is", FILE_LIMIT >> 20)));
    }
    Ok(bytes)
}

impl Keyring {
    /// From what a repository's `keyring` says: the name of a shipped keyring, an absolute path, or an armored block.
    pub fn load(keyring: &str) -> Result<Self> {
        if keyring.contains(ARMOR) {
            return Self::from_armor("the given key block", keyring);
        }
        if let Some((name, text)) = SHIPPED.iter().find(|(name, _)| *name == keyring) {
            return Self::from_armor(name, text);
        }
        if keyring.starts_with('/') {
            return Self::read(Path::new(keyring)).with_context(|| format!("reading keyring {keyring}"));
        }
        let known: Vec<&str> = SHIPPED.iter().map(|(name, _)| *name).collect();
        let problem =
            if keyring.is_empty() { "no keyring is given".to_owned() } else { format!("unknown keyring `{keyring}`") };
        Err(Error::documents(problem)
            .hint(format!("use one of {}, an absolute path, or an armored public key block", known.join(", "))))
    }

    fn read(path: &Path) -> Result<Self> {
        let bytes = read_file(path)?;
        let name = path.display().to_string();
        match std::str::from_utf8(&bytes) {
            Ok(text) if text.contains(ARMOR) => Self::from_armor(&name, text),
            _ => Self::collect(&name, SignedPublicKey::from_bytes_many(&bytes[..]).map_err(unreadable)?),
        }
    }

    /// One or more armored blocks.
    fn from_armor(name: &str, text: &str) -> Result<Self> {
        let mut ring = Keyring { name: name.to_owned(), keys: Vec::new() };
        for (start, _) in text.match_indices(ARMOR) {
            let (keys, _) = SignedPublicKey::from_armor_many(&text.as_bytes()[start..]).map_err(unreadable)?;
            ring.keys.extend(Self::collect(name, keys)?.keys);
        }
        Ok(ring)
    }

    fn collect(name: &str, keys: impl Iterator<Item = pgp::errors::Result<SignedPublicKey>>) -> Result<Self> {
        let keys: Vec<SignedPublicKey> = keys.collect::<pgp::errors::Result<_>>().map_err(unreadable)?;
        if keys.is_empty() {
            return Err(Error::documents(format!("there is no public key in {name}")));
        }
        Ok(Keyring { name: name.to_owned(), keys })
    }

    /// Fingerprints of the primary keys, in capitals.
    pub fn fingerprints(&self) -> Vec<String> {
        self.keys.iter().map(|key| fingerprint(&key.primary_key)).collect()
    }

    /// The signed text of a clear-signed message, if at least one key of this ring made a good signature over it.
    pub fn verify(&self, message: &str, now: i64) -> Result<Verified> {
        self.verify_as_of(message, now, now)
    }

    /// The same for a text of the past: what has expired since then counts. What is from the future, as of now, never
    /// does.
    pub fn verify_as_of(&self, message: &str, then: i64, now: i64) -> Result<Verified> {
        let message = ClearSigned::parse(message).map_err(|error| unsigned(&error))?;
        let signatures = DetachedSignature::from_armor_many(message.signatures.as_bytes());
        let (signatures, _) = signatures.map_err(|error| unsigned(&error))?;
        let mut reasons: Vec<String> = Vec::new();
        for signature in signatures.take(SIGNATURES) {
            let signature = signature.map_err(|error| unsigned(&error))?.signature;
            match self.check(&signature, message.text.as_bytes(), then, now) {
                Ok(signed_by) => return Ok(Verified { text: message.plain_text(), signed_by }),
                Err(reason) => {
                    if !reasons.contains(&reason) {
                        reasons.push(reason);
                    }
                }
            }
        }
        if reasons.is_empty() {
            reasons.push("there is no signature".to_owned());
        }
        Err(Error::new(
            Kind::Authenticity,
            format!("the signature is not good by keyring {}: {}", self.name, reasons.join("; ")),
        )
        .hint("`keyring` of the repository has to hold the key that the archive signs with"))
    }

    /// The fingerprint of the key that made the signature, or why it does not count.
    fn check(&self, signature: &Signature, text: &[u8], then: i64, now: i64) -> Result<String, String> {
        check_form(signature, then, now)?;
        let mut reason = format!("signed by {}, which is not in it", issuer(signature));
        for key in &self.keys {
            let primary = &key.primary_key;
            if issued_by(signature, primary) {
                let name = fingerprint(primary);
                if let Err(error) = signature.verify(primary, text) {
                    reason = format!("the text does not match the signature of {name} ({error})");
                    continue;
                }
                return usable_primary(key, then).map(|()| name);
            }
            for subkey in key.public_subkeys.iter().filter(|subkey| issued_by(signature, &subkey.key)) {
                let name = fingerprint(&subkey.key);
                if let Err(error) = signature.verify(&subkey.key, text) {
                    reason = format!("the text does not match the signature of {name} ({error})");
                    continue;
                }
                usable_owner(key, then)?;
                return usable_subkey(key, subkey, then).map(|()| name);
            }
        }
        Err(reason)
    }
}

/// Kind, strength and age of a signature over data.
fn check_form(signature: &Signature, then: i64, now: i64) -> Result<(), String> {
    if !matches!(signature.typ(), Some(SignatureType::Binary | SignatureType::Text)) {
        return Err("a signature of another kind than over a text".to_owned());
    }
    if !is_strong(signature) {
        return Err("a signature over a hash that is not safe any more".to_owned());
    }
    let created = signature.created().map(|time| time.timestamp()).ok_or("a signature without a date")?;
    if created > now.saturating_add(CLOCK_SLACK) {
        return Err("a signature from the future: check the clock of this machine".to_owned());
    }
    match signature.signature_expiration_time().map(|life| life.num_seconds()) {
        Some(life) if life > 0 && created.saturating_add(life) < then => Err("the signature has expired".to_owned()),
        _ => Ok(()),
    }
}

fn is_strong(signature: &Signature) -> bool {
    matches!(
        signature.hash_alg(),
        Some(
            HashAlgorithm::Sha256
                | HashAlgorithm::Sha384
                | HashAlgorithm::Sha512
                | HashAlgorithm::Sha3_256
                | HashAlgorithm::Sha3_512
        )
    )
}

/// A primary key may sign when neither revoked nor expired and, by its newest self-signature, made for signing.
fn usable_primary(key: &SignedPublicKey, now: i64) -> Result<(), String> {
    usable_owner(key, now)?;
    match newest(self_signatures(key)) {
        Some(signature) if signature.key_flags() != Default::default() && !signature.key_flags().sign() => {
            Err(format!("key {} is not meant for signing", fingerprint(&key.primary_key)))
        }
        _ => Ok(()),
    }
}

/// Not revoked, not expired.
fn usable_owner(key: &SignedPublicKey, now: i64) -> Result<(), String> {
    let primary = &key.primary_key;
    let name = fingerprint(primary);
    if key.details.revocation_signatures.iter().any(|signature| signature.verify_key(primary).is_ok()) {
        return Err(format!("key {name} is revoked"));
    }
    let life = newest(self_signatures(key)).and_then(|signature| signature.key_expiration_time().cloned());
    check_life(&name, primary.created_at().timestamp(), life.map(|life| life.num_seconds()), now)
}

fn usable_subkey(key: &SignedPublicKey, subkey: &SignedPublicSubKey, now: i64) -> Result<(), String> {
    let primary = &key.primary_key;
    let name = fingerprint(&subkey.key);
    let of_kind = |kind| {
        subkey.signatures.iter().filter(move |signature| {
            signature.typ() == Some(kind) && signature.verify_subkey_binding(primary, &subkey.key).is_ok()
        })
    };
    if of_kind(SignatureType::SubkeyRevocation).next().is_some() {
        return Err(format!("key {name} is revoked"));
    }
    let binding = newest(of_kind(SignatureType::SubkeyBinding).filter(|signature| is_strong(signature)));
    let Some(binding) = binding else { return Err(format!("key {name} is not bound to its primary key")) };
    if !binding.key_flags().sign() {
        return Err(format!("key {name} is not meant for signing"));
    }
    let back = binding.embedded_signature();
    if !back.is_some_and(|back| is_strong(back) && back.verify_primary_key_binding(&subkey.key, primary).is_ok()) {
        return Err(format!("key {name} does not confirm its primary key"));
    }
    let life = binding.key_expiration_time().map(|life| life.num_seconds());
    check_life(&name, subkey.key.created_at().timestamp(), life, now)
}

fn check_life(name: &str, created: i64, life: Option<i64>, now: i64) -> Result<(), String> {
    match life {
        Some(life) if life > 0 && created.saturating_add(life) < now => Err(format!("key {name} has expired")),
        _ => Ok(()),
    }
}

/// What the key says of itself: certifications of its user ids and direct signatures, verified.
fn self_signatures(key: &SignedPublicKey) -> impl Iterator<Item = &Signature> {
    let primary = &key.primary_key;
    let users = key.details.users.iter().flat_map(move |user| {
        user.signatures.iter().filter(move |signature| {
            signature.is_certification()
                && issued_by(signature, primary)
                && signature.verify_certification(primary, Tag::UserId, &user.id).is_ok()
        })
    });
    let direct = key.details.direct_signatures.iter();
    users.chain(direct.filter(move |signature| signature.verify_key(primary).is_ok()))
}

fn newest<'a>(signatures: impl Iterator<Item = &'a Signature>) -> Option<&'a Signature> {
    signatures.max_by_key(|signature| signature.created().map(|time| time.timestamp()))
}

fn issued_by(signature: &Signature, key: &impl PublicKeyTrait) -> bool {
    signature.issuer_fingerprint().iter().any(|print| **print == key.fingerprint())
        || signature.issuer().iter().any(|id| **id == key.key_id())
}

fn issuer(signature: &Signature) -> String {
    let print = signature.issuer_fingerprint().first().map(|print| format!("{print:X}"));
    let id = || signature.issuer().first().map(|id| hex::encode_upper(id.as_ref()));
    print.or_else(id).unwrap_or_else(|| "an unnamed key".to_owned())
}

fn fingerprint(key: &(impl PublicKeyTrait + Serialize)) -> String {
    format!("{:X}", key.fingerprint())
}

fn unsigned(problem: &dyn std::fmt::Display) -> Error {
    Error::new(Kind::Authenticity, format!("not a clear-signed text: {problem}"))
}

fn unreadable(error: pgp::errors::Error) -> Error {
    Error::documents(format!("not an OpenPGP public key: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shipped_keyrings_hold_the_published_keys() {
        let debian = Keyring::load("debian-archive").unwrap().fingerprints();
        // https://ftp-master.debian.org/keys.html
        for key in [
            "B8B80B5B623EAB6AD8775C45B7C5D7D6350947F8",
            "05AB90340C0C5E797F44A8C8254CF3B5AEC0A8F0",
            "4D64FEC119C2029067D6E791F8D2585B8783D481",
            "04B54C3CDCA79751B16BC6B5225629DF75B188BD",
            "5E04A1E3223A19A20706E20F9904613D4CCE68C6",
            "41587F7DB8C774BCCF131416762F67A0B2C39DE4",
        ] {
            assert!(debian.iter().any(|print| print == key), "{key}");
        }
        assert_eq!(debian.len(), 6);
        let ubuntu = Keyring::load("ubuntu-archive").unwrap().fingerprints();
        assert_eq!(ubuntu, ["790BC7277767219C42C86F933B4FE6ACC0B21F32", "F6ECB3762474EDA9D21B7022871920D1991BC93C"]);
    }

    #[test]
    fn an_unknown_keyring_is_the_documents_fault() {
        for keyring in ["debian", "", "keys/relative.gpg"] {
            let error = Keyring::load(keyring).unwrap_err();
            assert_eq!(error.kind(), Kind::Documents);
            assert!(error.hints()[0].contains("debian-archive, ubuntu-archive"));
        }
        assert!(
            Keyring::load("/nonexistent.gpg").unwrap_err().to_string().contains("reading keyring /nonexistent.gpg")
        );
        assert!(Keyring::load(&format!("{ARMOR}\n\nnonsense\n")).is_err());
    }

    const JULY: i64 = 1_719_792_000; // 2024-07-01, when the messages were signed
    const KEY: &str = include_str!("../../tests/cases/keyring/key.asc");
    const GOOD: &str = include_str!("../../tests/cases/keyring/good.asc");
    const DAY: i64 = 86_400;

    fn reason(keyring: &str, message: &str, now: i64) -> String {
        let error = Keyring::load(keyring).unwrap().verify(message, now).unwrap_err();
        assert_eq!(error.kind(), Kind::Authenticity);
        error.to_string()
    }

    #[test]
    fn a_good_signature_gives_the_signed_text_and_nothing_else() {
        let verified = Keyring::load(KEY).unwrap().verify(GOOD, JULY).unwrap();
        assert_eq!(verified.signed_by, "C538D3467F3790501166CB41D2AE850C9C4F2B78");
        // Dashes are unescaped; blanks at line ends are not part of what is signed.
        let expected = "Suite: test\nDate: Mon, 01 Jul 2024 00:00:00 UTC\n- dashes stay\ntrailing";
        assert_eq!(verified.text.trim_end(), expected);
        for around in [format!("Suite: forged\n\n{GOOD}"), format!("{GOOD}\nSuite: forged\n")] {
            match Keyring::load(KEY).unwrap().verify(&around, JULY) {
                Ok(verified) => assert_eq!(verified.text.trim_end(), expected),
                Err(error) => assert_eq!(error.kind(), Kind::Authenticity),
            }
        }
    }

    #[test]
    fn signatures_that_do_not_count() {
        let tampered = GOOD.replace("Suite: test", "Suite: tesT");
        assert!(reason(KEY, &tampered, JULY).contains("the text does not match the signature of C538D346"));
        assert!(reason(KEY, &GOOD.replace("BEGIN PGP SIGNED", "BEGIN PGP"), JULY).contains("not a clear-signed text"));
        assert!(reason(KEY, GOOD, JULY - 2 * DAY).contains("from the future"));
        let sha1 = include_str!("../../tests/cases/keyring/sha1.asc");
        assert!(reason(KEY, sha1, JULY).contains("a hash that is not safe"));
        let short = include_str!("../../tests/cases/keyring/short-lived.asc");
        assert!(Keyring::load(KEY).unwrap().verify(short, JULY + 9 * DAY).is_ok());
        assert!(reason(KEY, short, JULY + 11 * DAY).contains("the signature has expired"));
    }

    #[test]
    fn keys_that_do_not_count() {
        let other = include_str!("../../tests/cases/keyring/key-other.asc");
        assert!(
            reason(other, GOOD, JULY)
                .contains("signed by C538D3467F3790501166CB41D2AE850C9C4F2B78, which is not in it")
        );
        let revoked = include_str!("../../tests/cases/keyring/key-revoked.asc");
        assert!(reason(revoked, GOOD, JULY).contains("key E51B1A557FA836687E217602E249D1C144404654 is revoked"));
        let revoked = include_str!("../../tests/cases/keyring/key-subkey-revoked.asc");
        assert!(reason(revoked, GOOD, JULY).contains("key C538D3467F3790501166CB41D2AE850C9C4F2B78 is revoked"));
        let expired = include_str!("../../tests/cases/keyring/key-subkey-expired.asc");
        assert!(reason(expired, GOOD, JULY).contains("key C538D3467F3790501166CB41D2AE850C9C4F2B78 has expired"));
        // Two blocks in one text: the second one counts as well.
        assert!(Keyring::load(&format!("{other}\n{KEY}")).unwrap().verify(GOOD, JULY).is_ok());
    }

    #[test]
    fn a_real_index_by_the_shipped_keyring() {
        let packed = include_bytes!("../../tests/cases/keyring/debian-security.InRelease.xz");
        let mut text = String::new();
        std::io::Read::read_to_string(&mut liblzma::read::XzDecoder::new(&packed[..]), &mut text).unwrap();
        let november = 1_795_000_000;
        let verified = Keyring::load("debian-archive").unwrap().verify(&text, november).unwrap();
        assert!(verified.text.contains("Codename: bookworm-security"));
        assert!(reason("ubuntu-archive", &text, november).contains("which is not in it"));
        assert!(reason("debian-archive", &text, november + 30 * 365 * DAY).contains("has expired"));
        assert!(reason("debian-archive", &text.replace("bookworm", "bookw0rm"), november).contains("does not match"));
    }
}
