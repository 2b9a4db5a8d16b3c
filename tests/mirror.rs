//! Indexes and packages from mirrors that behave in all the ways mirrors do, through the library. The mirror itself is
//! in `support`.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use imagebuilder::api::params::distribution::{Empty, Repository};
use imagebuilder::api::params::software::Layer;
use imagebuilder::error::{Error, Kind, Result};
use imagebuilder::package::Environment;
use imagebuilder::package::fetch::{deb_path, fetch_all};
use imagebuilder::package::http::{Client, Patience, Proxies};
use imagebuilder::package::lock::{self, LayerRequest, Lock, PackageRequest, Request};
use imagebuilder::report::Reporter;
use imagebuilder::tree::Digest;
use support::mirror::{Archive, Fault, IN_RELEASE, INDEX, Mirror, Suite, TOOL, date, deb, now};

// ---- a run ----

struct Run {
    archive: Archive,
    mirror: Mirror,
    folder: tempfile::TempDir,
}

impl Run {
    fn new() -> Self {
        Self::with(&Suite::default())
    }

    fn with(suite: &Suite) -> Self {
        let archive = Archive::new();
        let mirror = Mirror::start(suite.files(&archive));
        Run { archive, mirror, folder: tempfile::tempdir().unwrap() }
    }

    fn environment(&self) -> Environment {
        self.environment_with(Proxies::default())
    }

    fn environment_with(&self, proxies: Proxies) -> Environment {
        let patience = Patience { attempts: 3, pause: Duration::from_millis(1), timeout: Duration::from_millis(1000) };
        Environment {
            cache: self.folder.path().to_owned(),
            now: now(),
            reporter: Reporter::quiet(),
            http: Client::new(proxies, patience).unwrap(),
        }
    }

    fn request(&self, repository: Repository) -> Request {
        Request {
            architecture: "amd64".into(),
            repositories: BTreeMap::from([("test".to_owned(), repository)]),
            layers: vec![
                LayerRequest { layer: Layer::Base, packages: Vec::new() },
                LayerRequest {
                    layer: Layer::Role,
                    packages: vec![PackageRequest { name: "tool".into(), version: None }],
                },
            ],
            unapproved: BTreeSet::new(),
            tools: Vec::new(),
        }
    }

    fn resolve_from(&self, repository: Repository) -> Result<Lock> {
        lock::resolve(&self.request(repository), &self.environment())
    }

    fn resolve(&self) -> Result<Lock> {
        self.resolve_from(self.archive.repository(&self.mirror))
    }

    fn fetch(&self, lock: &Lock) -> Result<Vec<PathBuf>> {
        let packages: Vec<_> = lock.packages().cloned().collect();
        fetch_all(&packages, &lock.evidence.repositories, &self.environment())
    }

    /// Files below a folder of the cache.
    fn left(&self, folder: &str) -> Vec<PathBuf> {
        fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                if entry.path().is_dir() { walk(&entry.path(), found) } else { found.push(entry.path()) }
            }
        }
        let mut found = Vec::new();
        walk(&self.folder.path().join(folder), &mut found);
        found
    }
}

fn expect(result: Result<impl Sized>, kind: Kind, words: &[&str]) -> Error {
    let error = result.err().expect("an error");
    assert_eq!(error.kind(), kind, "{error}");
    for word in words {
        assert!(error.to_string().contains(word), "`{word}` in: {error}");
    }
    error
}

// ---- tests ----

#[test]
fn the_whole_way_and_a_second_time_without_downloads() {
    let run = Run::new();
    let mut lock = run.resolve().unwrap();
    let names: Vec<(Layer, &str)> = lock
        .layers
        .iter()
        .flat_map(|layer| layer.packages.iter().map(|package| (layer.layer, package.name.as_str())))
        .collect();
    assert_eq!(names, [(Layer::Base, "base"), (Layer::Role, "tool")]);
    let evidence = &lock.evidence.repositories["test"];
    assert_eq!(evidence.indexes.keys().collect::<Vec<_>>(), ["main/binary-amd64/Packages.xz"]);
    let paths = run.fetch(&lock).unwrap();
    assert_eq!(std::fs::read(&paths[1]).unwrap(), deb(TOOL, 1_700_000_000));
    assert_eq!(paths[0], deb_path(run.folder.path(), &lock.layers[0].packages[0].sha256));
    lock.settle_epoch(&paths).unwrap();
    assert_eq!(lock.epoch, Some(1_700_000_000));
    let again = run.resolve().unwrap();
    assert_eq!(again.digest(), Lock { epoch: None, ..lock.clone() }.digest());
    run.mirror.taken("");
    assert_eq!(run.fetch(&lock).unwrap(), paths);
    assert_eq!(run.mirror.taken(""), [""; 0]);
    assert_eq!(run.left("debs").len(), 2);
}

/// What the resolver answered is kept; the signed index is fetched and judged all the same.
#[test]
fn an_unchanged_index_is_not_read_again() {
    let run = Run::new();
    let first = run.resolve().unwrap();
    let forget = |form: &str| run.left(form).iter().for_each(|path| std::fs::remove_file(path).unwrap());
    let forget_all = || ["indexes/sha256", "indexes/plain"].into_iter().for_each(forget);
    assert_eq!((run.left("indexes/sha256").len(), run.left("indexes/plain").len()), (1, 1));
    forget_all();
    run.mirror.taken("");
    assert_eq!(run.resolve().unwrap(), first);
    assert_eq!(run.mirror.taken(""), [IN_RELEASE]);
    // Another date, the same packages.
    let newer = now();
    run.mirror.replace(Suite { date: newer, ..Suite::default() }.files(&run.archive));
    let later = run.resolve().unwrap();
    assert_eq!((run.left("indexes/sha256").len(), later.digest()), (0, first.digest()));
    assert_eq!(later.evidence.repositories["test"].date, date(newer).as_str());
    // Another question, a damaged answer, another pin: the index is needed.
    let mut request = run.request(run.archive.repository(&run.mirror));
    request.layers.truncate(1);
    assert_eq!(lock::resolve(&request, &run.environment()).unwrap().packages().count(), 1);
    assert_eq!(run.left("indexes/sha256").len(), 1);
    for answer in run.left("answers-v1") {
        std::fs::write(answer, "asked tool 9 all 1").unwrap();
    }
    forget_all();
    assert_eq!(run.resolve().unwrap().digest(), first.digest());
    assert_eq!(run.left("indexes/sha256").len(), 1);
    forget_all();
    let repository = Repository { priority: Some(900), ..run.archive.repository(&run.mirror) };
    assert_eq!(run.resolve_from(repository).unwrap().layers, first.layers);
    assert_eq!(run.left("indexes/sha256").len(), 1);
    // Its text is enough, and the file as downloaded is enough where the text is damaged.
    let again =
        |priority| run.resolve_from(Repository { priority: Some(priority), ..run.archive.repository(&run.mirror) });
    forget("indexes/sha256");
    assert_eq!(again(901).unwrap().layers, first.layers);
    assert_eq!(run.left("indexes/sha256").len(), 0);
    std::fs::write(&run.left("indexes/plain")[0], "something else").unwrap();
    assert_eq!(again(902).unwrap().layers, first.layers);
    assert_eq!(run.left("indexes/sha256").len(), 1);
    run.mirror.replace(Suite { valid_until: Some(now() - 60), ..Suite::default() }.files(&run.archive));
    expect(run.resolve(), Kind::Authenticity, &["the index has expired"]);
}

#[test]
fn images_of_one_run_see_one_index() {
    let run = Run::new();
    let environment = run.environment();
    let request = run.request(run.archive.repository(&run.mirror));
    let first = lock::resolve(&request, &environment).unwrap();
    run.mirror.replace(Suite { date: now() - 60, ..Suite::default() }.files(&run.archive));
    assert_eq!(lock::resolve(&request, &environment).unwrap(), first);
    assert_eq!(run.mirror.taken(IN_RELEASE).len(), 1);
    assert_ne!(run.resolve().unwrap(), first, "the next run asks");
}

#[test]
fn a_tampered_index_is_refused() {
    let run = Run::new();
    let mut files = Suite::default().files(&run.archive);
    let text = String::from_utf8(files[IN_RELEASE].clone()).unwrap();
    files.insert(IN_RELEASE.into(), text.replace("Codename: code", "Codename: c0de").into_bytes());
    run.mirror.replace(files);
    expect(run.resolve(), Kind::Authenticity, &["updating repository test", "does not match the signature"]);
    assert_eq!(run.left("debs").len() + run.left("indexes").len(), 0);
}

#[test]
fn a_key_of_somebody_else_is_refused() {
    let run = Run::new();
    let keyring = Archive::new().public;
    let repository = Repository { keyring, ..run.archive.repository(&run.mirror) };
    expect(run.resolve_from(repository), Kind::Authenticity, &["which is not in it"]);
    let repository = Repository { keyring: "debian-archive".into(), ..run.archive.repository(&run.mirror) };
    expect(run.resolve_from(repository), Kind::Authenticity, &["keyring debian-archive"]);
}

#[test]
fn an_expired_index_is_refused() {
    let run = Run::with(&Suite { valid_until: Some(now() - 60), ..Suite::default() });
    expect(run.resolve(), Kind::Authenticity, &["the index has expired"]);
    run.mirror.replace(Suite { valid_until: Some(now() + 600), ..Suite::default() }.files(&run.archive));
    run.resolve().unwrap();
}

#[test]
fn an_index_older_than_one_seen_before_is_refused() {
    let run = Run::new();
    run.resolve().unwrap();
    run.mirror.replace(Suite { date: now() - 86_400, ..Suite::default() }.files(&run.archive));
    expect(run.resolve(), Kind::Authenticity, &["older", "than one seen before"]);
    // Another mirror of the same archive is no way around.
    let other = Mirror::start(Suite { date: now() - 86_400, ..Suite::default() }.files(&run.archive));
    expect(run.resolve_from(run.archive.repository(&other)), Kind::Authenticity, &["than one seen before"]);
    run.mirror.replace(Suite { date: now(), ..Suite::default() }.files(&run.archive));
    run.resolve().unwrap();
}

#[test]
fn another_suite_than_the_one_asked_for_is_refused() {
    let run = Run::with(&Suite { name: "testing", ..Suite::default() });
    expect(run.resolve(), Kind::Authenticity, &["suite `stable` was asked for, the index is for `testing`"]);
}

#[test]
fn a_missing_component_or_architecture_is_the_documents_fault() {
    let run = Run::new();
    let components = BTreeMap::from([("universe".to_owned(), Empty {})]);
    let repository = Repository { components, ..run.archive.repository(&run.mirror) };
    let error = expect(run.resolve_from(repository), Kind::Documents, &["no component `universe`"]);
    assert_eq!(error.hints(), ["it has main"]);
    let mut request = run.request(run.archive.repository(&run.mirror));
    request.architecture = "riscv64".into();
    expect(lock::resolve(&request, &run.environment()), Kind::Documents, &["main/binary-riscv64/Packages"]);
}

#[test]
fn an_index_that_is_not_the_signed_one_is_refused() {
    let run = Run::new();
    let size = run.mirror.state.lock().unwrap().files[INDEX].len();
    for wrong in [vec![b'x'; size], vec![b'x'; size + 1]] {
        run.mirror.fault(INDEX, &[Fault::Instead(wrong)]);
        expect(run.resolve(), Kind::Authenticity, &["wrong file", "Packages.xz"]);
        assert_eq!(run.left("indexes/sha256").len(), 0);
    }
    run.resolve().unwrap();
}

#[test]
fn by_hash_where_offered_and_by_name_where_that_is_missing() {
    let suite = Suite { by_hash: true, ..Suite::default() };
    let run = Run::with(&suite);
    run.resolve().unwrap();
    assert!(run.mirror.taken("Packages.xz").is_empty());
    let other = Run::with(&suite);
    other.mirror.state.lock().unwrap().files.retain(|path, _| !path.contains("by-hash"));
    other.resolve().unwrap();
    assert_eq!(other.mirror.taken("Packages.xz").len(), 1);
}

#[test]
fn a_suite_that_is_not_automatic_has_a_low_pin() {
    let run = Run::with(&Suite { extra: "NotAutomatic: yes\nButAutomaticUpgrades: yes\n", ..Suite::default() });
    let repository = run.archive.repository(&run.mirror);
    let pin = |repository: &Repository| {
        imagebuilder::package::fetch::index::update("x", repository, "amd64", &run.environment()).unwrap().pin
    };
    assert_eq!(pin(&repository), 100);
    assert_eq!(pin(&Repository { priority: Some(900), ..repository.clone() }), 900);
}

#[test]
fn a_wrong_package_is_refused_and_nothing_stays_behind() {
    let run = Run::new();
    let lock = run.resolve().unwrap();
    let good = deb(TOOL, 1_700_000_000);
    let mut flipped = good.clone();
    flipped[100_000] ^= 1;
    let longer = [&good[..], b"more"].concat();
    for wrong in [flipped, longer] {
        run.mirror.fault(TOOL, &[Fault::Instead(wrong)]);
        expect(run.fetch(&lock), Kind::Authenticity, &["fetching package tool", &run.mirror.url(), "wrong file"]);
        assert!(run.left("debs").iter().all(|path| !path.to_string_lossy().contains(&Digest::of(&good).to_hex())));
    }
    run.fetch(&lock).unwrap();
}

#[test]
fn a_transfer_that_breaks_off_is_resumed() {
    let run = Run::new();
    let lock = run.resolve().unwrap();
    run.mirror.fault(TOOL, &[Fault::Truncate(100_000), Fault::Truncate(50_000)]);
    run.fetch(&lock).unwrap();
    assert_eq!(run.mirror.taken(TOOL), [TOOL, "pool/tool_2_all.deb@100000", "pool/tool_2_all.deb@150000"]);
}

#[test]
fn what_an_earlier_run_left_is_resumed_or_replaced() {
    let run = Run::new();
    let lock = run.resolve().unwrap();
    run.mirror.fault(TOOL, &[Fault::Truncate(1000), Fault::Truncate(1000), Fault::Truncate(1000)]);
    let error = expect(run.fetch(&lock), Kind::Network, &["giving up after 3 attempts", "after 3000 of 3000"]);
    assert!(error.hints()[0].contains("http_proxy"));
    run.mirror.taken("");
    run.fetch(&lock).unwrap();
    assert_eq!(run.mirror.taken(TOOL), ["pool/tool_2_all.deb@3000"]);
    // A partial file that is wrong costs one more transfer, a server without ranges likewise; a damaged one in the
    // store is noticed.
    let path = deb_path(run.folder.path(), &lock.layers[1].packages[0].sha256);
    std::fs::write(path.with_extension("part"), [0; 5000]).unwrap();
    std::fs::write(&path, b"damaged").unwrap();
    run.fetch(&lock).unwrap();
    assert_eq!(run.mirror.taken(TOOL), ["pool/tool_2_all.deb@5000", TOOL]);
    std::fs::rename(&path, path.with_extension("part")).unwrap();
    std::fs::OpenOptions::new().write(true).open(path.with_extension("part")).unwrap().set_len(7).unwrap();
    run.mirror.fault(TOOL, &[Fault::IgnoreRange]);
    run.fetch(&lock).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), deb(TOOL, 1_700_000_000));
    assert_eq!(std::fs::read(path.with_extension("damaged")).unwrap(), b"damaged", "set aside");
    assert_eq!(run.left("debs").len(), 3);
}

#[test]
fn a_mirror_with_hiccups_is_asked_again() {
    let run = Run::new();
    run.mirror.fault(IN_RELEASE, &[Fault::Status(503), Fault::Status(500)]);
    run.mirror.fault(INDEX, &[Fault::Status(429)]);
    let lock = run.resolve().unwrap();
    run.mirror.fault(TOOL, &[Fault::Stall(Duration::from_millis(2500)), Fault::Status(502)]);
    run.fetch(&lock).unwrap();
    run.mirror.fault(IN_RELEASE, &[Fault::Status(503), Fault::Status(503), Fault::Status(503)]);
    let error = expect(run.resolve(), Kind::Network, &["status 503", IN_RELEASE, "giving up after 3"]);
    assert!(error.hints()[0].contains("no proxy is set"));
}

#[test]
fn a_missing_file_is_not_asked_for_again() {
    let run = Run::new();
    let lock = run.resolve().unwrap();
    run.mirror.fault(TOOL, &[Fault::Status(404)]);
    expect(run.fetch(&lock), Kind::Network, &["fetching package tool", TOOL, "status 404"]);
    assert_eq!(run.mirror.taken(TOOL).len(), 1);
}

#[test]
fn redirects_are_followed() {
    let run = Run::new();
    run.mirror.fault(IN_RELEASE, &[Fault::Redirect("/archive/moved".into())]);
    let text = run.mirror.state.lock().unwrap().files[IN_RELEASE].clone();
    run.mirror.fault("moved", &[Fault::Redirect("moved/on".into())]);
    run.mirror.state.lock().unwrap().files.insert("moved/on".into(), text);
    run.resolve().unwrap();
    run.mirror.fault(IN_RELEASE, &vec![Fault::Redirect("/archive/dists/stable/InRelease".into()); 50]);
    expect(run.resolve(), Kind::Network, &["too many redirects"]);
}

#[test]
fn an_unreachable_mirror_is_named_with_a_hint() {
    let run = Run::new();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let repository = Repository {
        source: format!("http://user:secret@127.0.0.1:{closed}/debian"),
        ..run.archive.repository(&run.mirror)
    };
    let error = expect(run.resolve_from(repository), Kind::Network, &[&format!("***@127.0.0.1:{closed}/debian/dists")]);
    assert!(!error.to_string().contains("secret"));
    assert!(error.hints()[0].contains("set `http_proxy`"), "{:?}", error.hints());
    let repository = Repository { source: "ftp://x/debian".into(), ..run.archive.repository(&run.mirror) };
    expect(run.resolve_from(repository), Kind::Documents, &["not an http or https address"]);
}

#[test]
fn a_proxy_gets_whole_addresses_and_the_password() {
    let run = Run::new();
    let repository =
        Repository { source: "http://archive.invalid/archive".into(), ..run.archive.repository(&run.mirror) };
    let proxies = Proxies::from_variables([("http_proxy", format!("http://me:pw@127.0.0.1:{}", run.mirror.port))]);
    let environment = run.environment_with(proxies);
    let lock = lock::resolve(&run.request(repository.clone()), &environment).unwrap();
    let packages: Vec<_> = lock.packages().cloned().collect();
    fetch_all(&packages, &lock.evidence.repositories, &environment).unwrap();
    let heads = run.mirror.state.lock().unwrap().heads.clone();
    assert!(heads.len() >= 4);
    for head in heads {
        assert!(head.starts_with("GET http://archive.invalid/archive/"), "{head}");
        assert!(head.to_ascii_lowercase().contains("\r\nhost: archive.invalid\r\n"), "{head}");
        // base64 of `me:pw`
        assert!(head.to_ascii_lowercase().contains("proxy-authorization: basic bwu6chc="), "{head}");
    }
    // A host in `no_proxy` is reached directly; this proxy does not exist.
    let proxies = Proxies::from_variables([("HTTP_PROXY", "http://127.0.0.1:9"), ("no_proxy", "127.0.0.1")]);
    let direct = run.environment_with(proxies);
    lock::resolve(&run.request(run.archive.repository(&run.mirror)), &direct).unwrap();
    let error = expect(lock::resolve(&run.request(repository), &direct), Kind::Network, &["archive.invalid"]);
    assert!(error.hints()[0].contains("requests go through proxy http://127.0.0.1:9"), "{:?}", error.hints());
}

#[test]
fn runs_at_the_same_time_share_one_store() {
    let run = Run::new();
    let lock = run.resolve().unwrap();
    run.mirror.taken("");
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| run.fetch(&lock).unwrap())).collect();
        for thread in threads {
            thread.join().unwrap();
        }
    });
    assert_eq!(run.mirror.taken(".deb").len(), 2);
    assert_eq!(run.left("debs").len(), 2);
}

#[test]
fn a_flat_repository_has_no_components() {
    let run = Run::new();
    let packages =
        "Package: flat\nVersion: 1\nArchitecture: amd64\nEssential: yes\nFilename: ./flat.deb\nSize: 300004\n";
    let bytes = deb("flat", 1);
    let packages = packages.replace("300004", &bytes.len().to_string()) + &format!("SHA256: {}\n", Digest::of(&bytes));
    let release =
        format!("Date: {}\nSHA256:\n {} {} Packages\n", date(now()), Digest::of(packages.as_bytes()), packages.len());
    run.mirror.replace(BTreeMap::from([
        ("InRelease".to_owned(), run.archive.sign(&release).into_bytes()),
        ("Packages".to_owned(), packages.into_bytes()),
        ("flat.deb".to_owned(), bytes),
    ]));
    let repository =
        Repository { suite: "/".into(), components: BTreeMap::new(), ..run.archive.repository(&run.mirror) };
    let mut request = run.request(repository);
    request.layers.truncate(1);
    let lock = lock::resolve(&request, &run.environment()).unwrap();
    assert_eq!(run.fetch(&lock).unwrap().len(), 1);
}

/// The real Debian archive, where it can be reached: signature, index, and a few small packages.
#[test]
fn the_real_archive() {
    let folder = tempfile::tempdir().unwrap();
    let environment = Environment {
        cache: folder.path().to_owned(),
        now: now(),
        reporter: Reporter::quiet(),
        http: Client::new(Proxies::from_variables(std::env::vars()), Patience { attempts: 2, ..Patience::default() })
            .unwrap(),
    };
    let repository = Repository {
        source: "http://deb.debian.org/debian".into(),
        suite: "bookworm".into(),
        components: BTreeMap::from([("main".to_owned(), Empty {})]),
        keyring: "debian-archive".into(),
        ..Repository::default()
    };
    let request = Request {
        architecture: "amd64".into(),
        repositories: BTreeMap::from([("debian".to_owned(), repository)]),
        layers: vec![LayerRequest { layer: Layer::Base, packages: Vec::new() }],
        unapproved: BTreeSet::new(),
        tools: Vec::new(),
    };
    let mut lock = match lock::resolve(&request, &environment) {
        Err(error) if error.kind() == Kind::Network => {
            eprintln!("skipped: {error}");
            return;
        }
        lock => lock.unwrap(),
    };
    assert!(lock.packages().any(|package| package.name == "dpkg"));
    let mut packages: Vec<_> = lock.packages().cloned().collect();
    packages.sort_by_key(|package| package.size);
    packages.truncate(8);
    let paths = fetch_all(&packages, &lock.evidence.repositories, &environment).unwrap();
    for (path, package) in paths.iter().zip(&packages) {
        assert_eq!(Digest::of(&std::fs::read(path).unwrap()), package.sha256);
    }
    lock.settle_epoch(&paths).unwrap();
    let epoch = lock.epoch.unwrap();
    assert!((1_500_000_000..now()).contains(&epoch), "{epoch}");
}
