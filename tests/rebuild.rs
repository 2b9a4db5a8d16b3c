//! An image from itself: packages found again by digest, secrets given again, and the whole way with a real image.

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use imagebuilder::document;
use imagebuilder::error::Kind;
use imagebuilder::format::{ext4, raw};
use imagebuilder::package::Environment;
use imagebuilder::package::fetch::fetch_all;
use imagebuilder::package::http::{Client, Patience, Proxies};
use imagebuilder::package::lock::{self, Lock, places};
use imagebuilder::plan::{self, Intent, LockedPlan, locked};
use imagebuilder::report::Reporter;
use imagebuilder::tree::{Meta, Mtime, Tree, TreePath};
use support::mirror::{Archive, IN_RELEASE, Mirror, Suite, TOOL, now};
use uuid::Uuid;

struct Run {
    archive: Archive,
    mirror: Mirror,
    folder: tempfile::TempDir,
}

impl Run {
    fn new() -> Self {
        let archive = Archive::new();
        let mirror = Mirror::start(Suite::default().files(&archive));
        Run { archive, mirror, folder: tempfile::tempdir().unwrap() }
    }

    fn cache(&self) -> PathBuf {
        self.folder.path().join("cache")
    }

    fn environment(&self) -> Environment {
        let patience = Patience { attempts: 2, pause: Duration::from_millis(1), timeout: Duration::from_millis(2000) };
        let http = Client::new(Proxies::default(), patience).unwrap();
        Environment { cache: self.cache(), now: now(), reporter: Reporter::quiet(), http }
    }

    fn intent(&self) -> Intent {
        let image = serde_json::json!({
            "apiVersion": "airshipit.org/v1alpha1", "kind": "AirshipImage", "metadata": {"name": "node"},
            "spec": {"params": {
                "distribution": {"name": "debian", "release": "bookworm", "repositories": {"test": {
                    "source": self.mirror.url(), "suite": "stable", "keyring": self.archive.public,
                    "components": {"main": {}}}}},
                "software": {"packages": {"tool": {}}},
                "files": {"/etc/app/key": {"file_content": "private\n", "permissions": "0600"}}}}
        });
        let documents = document::load_str("site.yaml", &image.to_string()).unwrap();
        plan::from_documents(&documents, None).unwrap()
    }

    fn lock(&self, intent: &Intent) -> Lock {
        let mut lock = lock::resolve(&intent.package_request(), &self.environment()).unwrap();
        locked::complete(&mut lock, intent);
        lock.epoch = Some(1_700_000_000);
        lock
    }

    /// A file system with nothing in it but what the image says about itself.
    fn image(&self, metadata: Option<&[u8]>) -> PathBuf {
        let mut tree = Tree::new();
        if let Some(bytes) = metadata {
            let path = TreePath::literal("etc/imagebuilder/meta");
            tree.write_file(&path, bytes, Meta::root(0o644), &"t".into()).unwrap();
        }
        let options = ext4::Options {
            size: 32 << 20,
            uuid: Uuid::from_u128(1),
            hash_seed: Uuid::from_u128(2),
            label: String::new(),
            time: Mtime::default(),
            bytes_per_inode: 16384,
            inodes: None,
            reserved_percent: 0,
            features: ext4::Features::default(),
        };
        let at = self.folder.path().join("node.raw");
        let disk = ext4::make(&tree, &options).unwrap();
        raw::write(&disk, &std::fs::File::create(&at).unwrap(), &|_| ()).unwrap();
        at
    }

    fn rebuild(&self, image: &Path, more: &[&str]) -> (Option<i32>, String) {
        let out = Command::new(env!("CARGO_BIN_EXE_imagebuilder"))
            .args(["--progress", "quiet", "rebuild", "--check"])
            .arg(image)
            .arg("--cache-dir")
            .arg(self.cache())
            .args(more)
            .output()
            .unwrap();
        (out.status.code(), String::from_utf8_lossy(&out.stderr).into_owned())
    }
}

#[test]
fn places_are_found_again_by_digest() {
    let run = Run::new();
    let intent = run.intent();
    let known = run.lock(&intent);
    let mut bare = Lock::from_hashed_part("meta", &known.hashed_text()).unwrap();
    assert!(bare.packages().all(|package| package.path.is_empty()));
    places::find(&mut bare, &intent.package_request(), &run.environment()).unwrap();
    assert_eq!(bare.packages().collect::<Vec<_>>(), known.packages().collect::<Vec<_>>());
    let packages: Vec<_> = bare.packages().cloned().collect();
    fetch_all(&packages, &bare.repositories_at(&intent.package_request()).unwrap(), &run.environment()).unwrap();
    // All are in the store now: nobody is asked.
    run.mirror.taken(IN_RELEASE);
    let mut again = Lock::from_hashed_part("meta", &known.hashed_text()).unwrap();
    places::find(&mut again, &intent.package_request(), &run.environment()).unwrap();
    assert!(run.mirror.taken(IN_RELEASE).is_empty());
}

#[test]
fn a_package_that_is_gone_is_named() {
    let run = Run::new();
    let intent = run.intent();
    let known = run.lock(&intent);
    let only = [(
        "pool/base_1_amd64.deb".to_owned(),
        "Package: base\nVersion: 1\nArchitecture: amd64\nEssential: yes\n".to_owned(),
        support::mirror::deb(support::mirror::BASE, 1_600_000_000),
    )];
    let newer = Suite { date: now() - 60, ..Suite::default() };
    run.mirror.replace(newer.files_of(&run.archive, &only));
    let mut bare = Lock::from_hashed_part("meta", &known.hashed_text()).unwrap();
    let error = places::find(&mut bare, &intent.package_request(), &run.environment()).unwrap_err();
    assert_eq!(error.kind(), Kind::Network);
    assert!(error.to_string().contains("package tool 2 ("), "{error}");
    assert!(!error.hints().is_empty() && !TOOL.is_empty());
}

#[test]
fn what_an_image_does_not_say_is_asked_for() {
    let run = Run::new();
    let intent = run.intent();
    let plan = LockedPlan::new(&intent, &run.lock(&intent)).unwrap();
    let (code, said) = run.rebuild(&run.image(None), &[]);
    assert!(code == Some(1) && said.contains("does not say what it was built from"), "{said}");
    let image = run.image(Some(&plan.metadata));
    let (code, said) = run.rebuild(&image, &[]);
    assert!(code == Some(2) && said.contains("files/~1etc~1app~1key/file_content"), "{said}");
    // Of another version of a step.
    let text = String::from_utf8(plan.metadata.clone()).unwrap();
    let parts: Vec<&str> = text.split("\n---\n").collect();
    let other = parts[2].replacen("pack: ", "pack: 9", 1);
    let head = parts[0].replace(
        &imagebuilder::tree::Digest::of(parts[2].as_bytes()).to_hex(),
        &imagebuilder::tree::Digest::of(other.as_bytes()).to_hex(),
    );
    assert_ne!(other, parts[2]);
    let image = run.image(Some(format!("{head}\n---\n{}\n---\n{other}", parts[1]).as_bytes()));
    let secrets = run.folder.path().join("secrets");
    std::fs::create_dir_all(secrets.join("files/~1etc~1app~1key")).unwrap();
    std::fs::write(secrets.join("files/~1etc~1app~1key/file_content"), "private\n").unwrap();
    let (code, said) = run.rebuild(&image, &["--secrets", secrets.to_str().unwrap()]);
    assert!(code == Some(7) && said.contains("step `pack`"), "{code:?} {said}");
    assert!(said.contains("hint: only the version of imagebuilder") && !said.contains("lock --update"), "{said}");
}

/// The whole way: `REBUILD_IMAGE=out/node.qcow2 REBUILD_CACHE=... [REBUILD_SECRETS=dir] cargo test --test rebuild --
/// --ignored`. The image must have been made by this very version.
#[test]
#[ignore = "builds a real image twice"]
fn a_real_image_is_what_it_says() {
    let variable = |name: &str| std::env::var(name).ok();
    let (Some(image), Some(cache)) = (variable("REBUILD_IMAGE"), variable("REBUILD_CACHE")) else {
        println!("skipped: REBUILD_IMAGE and REBUILD_CACHE are not set");
        return;
    };
    let secrets: BTreeMap<&str, String> =
        variable("REBUILD_SECRETS").map(|folder| ("--secrets", folder)).into_iter().collect();
    let check = |image: &Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_imagebuilder"));
        command.args(["--progress", "quiet", "rebuild", "--check"]).arg(image).args(["--cache-dir", &cache]);
        for (flag, folder) in &secrets {
            command.args([flag, folder.as_str()]);
        }
        let out = command.output().unwrap();
        let said = [out.stdout, out.stderr].concat();
        (out.status.code(), String::from_utf8_lossy(&said).into_owned())
    };
    let (code, said) = check(Path::new(&image));
    assert!(code == Some(0) && said.contains("identical"), "{said}");
    // One byte of the header of the image file.
    let scratch = tempfile::tempdir().unwrap();
    let damaged = scratch.path().join("damaged");
    std::fs::copy(&image, &damaged).unwrap();
    let file = std::fs::File::options().read(true).write(true).open(&damaged).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[1], 95).unwrap();
    let (code, said) = check(&damaged);
    assert!(code == Some(8) && said.contains("the qcow2 header"), "{said}");
}
