//! Locks against the real program: made, kept, moved, compared; and everything that can be wrong with one, each with its
//! exit code. Builds need a user namespace; where the machine refuses one, those tests say so and end.

#[path = "support/outcome.rs"]
mod outcome;
mod support;

use std::path::PathBuf;
use std::process::{Command, Stdio};

use imagebuilder::package::lock::Lock;
use outcome::Outcome;
use support::mirror::{Archive, Fault, IN_RELEASE, Mirror, Suite, date, now, real_deb};

const FILE: &str = "small/small.lock.yaml";

/// An archive, a mirror of it, documents, a cache.
struct Shop {
    folder: tempfile::TempDir,
    archive: Archive,
    mirror: Mirror,
}

/// What the archive has: name, version, relations.
type Offer = (&'static str, &'static str, &'static str);

const FIRST: [Offer; 5] = [
    ("base", "1", "Essential: yes\n"),
    ("lib", "1", ""),
    ("tool", "2", "Depends: lib (>= 1)\n"),
    ("plugin", "1", "Depends: lib (= 1)\n"),
    ("other", "1", ""),
];

/// A while later: all of the old versions are gone.
const LATER: [Offer; 6] = [
    ("base", "1", "Essential: yes\n"),
    ("lib", "2", ""),
    ("tool", "3", "Depends: lib (>= 2), fresh\n"),
    ("plugin", "2", "Depends: lib (= 2)\n"),
    ("other", "2", ""),
    ("fresh", "1", ""),
];

impl Shop {
    fn new() -> Self {
        let archive = Archive::new();
        let mirror = Mirror::start(Default::default());
        let shop = Shop { folder: tempfile::tempdir().unwrap(), archive, mirror };
        shop.offer(&FIRST, &Suite::default());
        shop.ask("tool: {}, other: {}");
        shop
    }

    fn offer(&self, offers: &[Offer], suite: &Suite) {
        let offers: Vec<(String, String, Vec<u8>)> = offers
            .iter()
            .map(|(name, version, relations)| {
                let control = format!("Package: {name}\nVersion: {version}\nArchitecture: amd64\n{relations}");
                (format!("pool/{name}_{version}_amd64.deb"), control.clone(), real_deb(&control, 1_600_000_000))
            })
            .collect();
        self.mirror.replace(suite.files_of(&self.archive, &offers));
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        std::fs::write(self.path(name), text).unwrap();
    }

    /// Documents that want these packages (line 7).
    fn ask(&self, packages: &str) {
        self.ask_with(packages, "");
    }

    fn ask_with(&self, packages: &str, more: &str) {
        let keyring: String = self.archive.public.lines().map(|line| format!("\n            {line}")).collect();
        self.write("small/kustomization.yaml", "resources: [image.yaml]\n");
        self.write(
            "small/image.yaml",
            &format!(
                "apiVersion: airshipit.org/v1alpha1
kind: AirshipImage
metadata: {{name: small}}
spec:
  params:
    software:
      packages: {{{packages}}}
    distribution:
      name: debian
      release: bookworm
      repositories:
        test:
          source: {}
          suite: stable
          components: {{main: {{}}}}
{more}          keyring: |{keyring}
",
                self.mirror.url()
            ),
        );
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_imagebuilder"));
        command.args(arguments).args(["--cache-dir", "cache", "--output-dir", "out", "--progress", "plain"]);
        command.current_dir(self.folder.path()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.env_remove("RUST_LOG").env_remove("SOURCE_DATE_EPOCH").env("NO_COLOR", "1").env("no_proxy", "*");
        command
    }

    fn run(&self, arguments: &[&str]) -> Outcome {
        Outcome::of(self.command(arguments).output().unwrap())
    }

    fn lock(&self) -> Lock {
        self.run(&["lock", "small"]).expect(0, &["packages locked"]);
        Lock::read(&self.path(FILE)).unwrap()
    }

    fn versions(&self) -> Vec<String> {
        let lock = Lock::read(&self.path(FILE)).unwrap();
        lock.packages().map(|package| format!("{}={}", package.name, package.version)).collect()
    }

    /// Nobody asked for an index, and nothing is in the output folder.
    fn assert_untouched(&self) {
        assert!(self.mirror.taken("InRelease").is_empty(), "an index was read");
        let left: Vec<_> = std::fs::read_dir(self.path("out")).into_iter().flatten().flatten().collect();
        assert!(left.is_empty(), "left in the output folder: {left:?}");
    }
}

// ---- making and moving ----

#[test]
fn a_lock_is_made_and_checked_without_the_network() {
    let shop = Shop::new();
    shop.run(&["lock", "small", "--check"]).expect(7, &["there is no lock small/small.lock.yaml", "hint: "]);
    let lock = shop.lock();
    assert_eq!(shop.versions(), ["base=1", "lib=1", "other=1", "tool=2"]);
    assert_eq!((lock.image.as_str(), lock.epoch), ("small", Some(1_600_000_000)));
    let text = shop.read(FILE);
    assert!(!text.contains(shop.folder.path().to_str().unwrap()));
    shop.run(&["lock", "small"]).expect(0, &["nothing has moved, 4 packages"]);
    shop.run(&["lock", "small", "--check", "--fresh"]).expect(0, &["fits the documents"]);
    shop.mirror.replace(Default::default());
    shop.mirror.taken("");
    shop.run(&["lock", "small", "--check"]).expect(0, &["fits the documents, 4 packages"]);
    assert!(shop.mirror.taken("").is_empty());
    // What the documents ask for now is compared exactly, with the place.
    shop.ask("tool: {}, other: {}, plugin: {}");
    let words = ["package `plugin` is asked for (small/image.yaml:7:47), the lock was made without it", "hint: "];
    shop.run(&["lock", "small", "--check"]).expect(7, &words);
    shop.ask("tool: {}");
    shop.run(&["lock", "small", "--check"]).expect(7, &["package `other` is in the lock because it was asked for"]);
    shop.ask_with("tool: {}, other: {}", "          priority: 900\n");
    let words = ["repository `test` has changed (small/image.yaml:13:11): priority `unset` is now `900`"];
    shop.run(&["lock", "small", "--check"]).expect(7, &words);
    shop.ask("tool: {}, other: {}");
    let mut command = shop.command(&["lock", "small", "--check"]);
    let outcome = Outcome::of(command.env("SOURCE_DATE_EPOCH", "7").output().unwrap());
    outcome.expect(7, &["the lock says epoch 1600000000, SOURCE_DATE_EPOCH is 7"]);
    assert_eq!(shop.read(FILE), text, "checking changes nothing");
}

#[test]
fn documents_that_change_move_no_more_than_needed() {
    let shop = Shop::new();
    shop.lock();
    shop.offer(&LATER, &Suite { date: now() - 60, ..Suite::default() });
    shop.run(&["lock", "small", "--check"]).expect(0, &[]);
    let fresh = shop.run(&["lock", "small", "--check", "--fresh"]);
    fresh.expect(7, &["upgraded", "tool", "is not what would be resolved now: 1 added, 3 upgraded", "lock --update"]);
    // One package less, one more: the versions of the others stay, although the archive has dropped them.
    shop.ask("tool: {}, fresh: {}");
    shop.run(&["lock", "small"]).expect(0, &["1 added, 1 removed"]);
    assert_eq!(shop.versions(), ["base=1", "fresh=1", "lib=1", "tool=2"]);
    shop.run(&["lock", "small", "--check"]).expect(0, &[]);
}

#[test]
fn named_packages_move_with_what_they_need_and_no_others() {
    let shop = Shop::new();
    shop.ask("tool: {}, other: {}, plugin: {}");
    shop.lock();
    let before = shop.read(FILE);
    shop.offer(&LATER, &Suite { date: now() - 60, ..Suite::default() });
    shop.run(&["lock", "small", "--update", "tol"]).expect(2, &["`tol` is not in the lock", "did you mean `tool`?"]);
    shop.run(&["lock", "small", "--update", "small/x"]).expect(2, &["not the name of a package"]);
    let moved = shop.run(&["lock", "small", "--update", "tool"]);
    // `tool` needs a newer `lib`, which `plugin` has to follow; `other` stays.
    moved.expect(0, &["added     role  fresh", "upgraded  role  lib", "upgraded  role  plugin", "1 added, 3 upgraded"]);
    assert_eq!(shop.versions(), ["base=1", "fresh=1", "lib=2", "other=1", "plugin=2", "tool=3"]);
    shop.write("before.lock.yaml", &before);
    let json = shop.run(&["lock", "diff", "before.lock.yaml", "small", "-o", "json"]);
    let rows: serde_json::Value = serde_json::from_str(&json.text).unwrap();
    assert_eq!(
        rows[1],
        serde_json::json!({"change": "upgraded", "part": "role", "name": "lib", "old": "1", "new": "2"})
    );
    assert_eq!(rows[0]["old"], serde_json::Value::Null);
    shop.run(&["lock", "diff", "small", FILE, "-o", "yaml"]).expect(0, &["[]"]);
    shop.run(&["lock", "diff", "small", "nowhere"]).expect(3, &["nowhere"]);
    shop.run(&["lock", "small", "--update"]).expect(0, &["upgraded  role  other  1    2", "1 upgraded"]);
    shop.run(&["lock", "small", "--check", "--fresh"]).expect(0, &[]);
}

#[test]
fn what_the_archive_and_the_store_have_lost_cannot_be_kept() {
    let shop = Shop::new();
    shop.lock();
    shop.offer(&LATER, &Suite { date: now() - 60, ..Suite::default() });
    std::fs::remove_dir_all(shop.path("cache/debs")).unwrap();
    let lost = shop.run(&["lock", "small", "--update", "tool"]);
    lost.expect(5, &["fetching package ", "is not there (status 404)", "the archive has dropped this version"]);
    shop.run(&["lock", "small", "--update"]).expect(0, &["upgraded  role  other"]);
}

// ---- the tools tree ----

/// What `--verify` runs, and a library that only one of them needs.
const TOOLS: [Offer; 5] = [
    ("dosfstools", "1", ""),
    ("e2fsprogs", "1", "Depends: lib (= 1)\n"),
    ("gdisk", "1", ""),
    ("libblock", "1", ""),
    ("qemu-utils", "1", "Depends: libblock\n"),
];

fn tools(lock: &Lock) -> Vec<String> {
    lock.tools.iter().map(|package| format!("{}={}", package.name, package.version)).collect()
}

#[test]
fn a_lock_names_the_tools_and_they_are_in_the_store() {
    let shop = Shop::new();
    shop.offer(&[&FIRST[..], &TOOLS].concat(), &Suite::default());
    let lock = shop.lock();
    assert_eq!(shop.versions(), ["base=1", "lib=1", "other=1", "tool=2"], "they are no part of the image");
    assert_eq!(tools(&lock), ["dosfstools=1", "e2fsprogs=1", "gdisk=1", "lib=1", "libblock=1", "qemu-utils=1"]);
    // A build that is to check its image needs nobody.
    shop.mirror.replace(Default::default());
    shop.mirror.taken("");
    let outcome = shop.run(&["build", "small", "--locked", "--verify"]);
    if outcome.is_skipped() {
        return;
    }
    // These packages make no root file system: the build gets as far as that.
    outcome.expect(1, &["installing the tools"]);
    assert!(shop.mirror.taken("").is_empty(), "everything is in the store");
    // They stay as they are until they are moved, by name as well.
    let newer = [("gdisk", "2", ""), TOOLS[0], TOOLS[1], TOOLS[3], TOOLS[4]];
    shop.offer(&[&FIRST[..], &newer].concat(), &Suite { date: now() - 60, ..Suite::default() });
    shop.run(&["lock", "small", "--check", "--fresh"]).expect(7, &["upgraded  tools  gdisk  1    2"]);
    shop.run(&["lock", "small", "--update", "tool"]).expect(0, &["nothing has moved"]);
    shop.run(&["lock", "small", "--update", "gdisk"]).expect(0, &["upgraded  tools  gdisk  1    2", "1 upgraded"]);
}

#[test]
fn a_lock_without_tools_is_completed_by_lock_and_nothing_else_moves() {
    let shop = Shop::new();
    let lock = shop.lock();
    assert_eq!(tools(&lock), [""; 0], "the repository does not have them");
    let outcome = shop.run(&["build", "small", "--locked", "--verify"]);
    if outcome.is_skipped() {
        return;
    }
    outcome.expect(7, &["the lock does not name the programs that `--verify` needs", "hint: `imagebuilder lock`"]);
    shop.run(&["build", "small", "--fresh", "--verify"])
        .expect(3, &["choosing the packages of the tools", "dosfstools"]);
    let newer: Vec<Offer> = LATER.iter().chain(&TOOLS[2..]).copied().collect();
    let newer = [&newer[..], &[("dosfstools", "1", ""), ("e2fsprogs", "1", "")]].concat();
    shop.offer(&newer, &Suite { date: now() - 60, ..Suite::default() });
    shop.run(&["lock", "small"]).expect(0, &["5 added"]);
    assert_eq!(shop.versions(), ["base=1", "lib=1", "other=1", "tool=2"]);
    shop.run(&["lock", "small"]).expect(0, &["nothing has moved"]);
}

// ---- bad locks ----

/// Runs `build --locked` and ends the test where the machine cannot build.
macro_rules! build {
    ($shop:expr) => {{
        let outcome = $shop.run(&["build", "small", "--locked"]);
        if outcome.is_skipped() {
            return;
        }
        outcome
    }};
}

#[test]
fn a_locked_build_reads_no_index_and_needs_no_mirror() {
    let shop = Shop::new();
    shop.lock();
    shop.mirror.taken("");
    // These packages make no root file system: the build gets as far as that.
    build!(shop).expect(1, &["using lock small/small.lock.yaml (4 packages)", "building image `small`"]);
    assert!(shop.mirror.taken("").is_empty(), "everything is in the store");
    // Without `--locked` the lock is used as well; `--fresh` leaves it aside.
    shop.run(&["build", "small"]).expect(1, &["using lock small/small.lock.yaml", "building image"]);
    shop.assert_untouched();
    let fresh = shop.run(&["build", "small", "--fresh"]);
    fresh.expect(1, &["building image"]);
    assert!(!fresh.text.contains("using lock") && shop.mirror.taken("InRelease").len() == 1);
    // From an empty store, by digest, under the address that the documents have now.
    std::fs::remove_dir_all(shop.path("cache")).unwrap();
    let other = Mirror::start(shop.mirror.state.lock().unwrap().files.clone());
    let text = shop.read("small/image.yaml").replace(&shop.mirror.url(), &other.url());
    shop.write("small/image.yaml", &text);
    build!(shop).expect(1, &["building image"]);
    assert_eq!((other.taken(".deb").len(), other.taken("").len()), (4, 0));
    shop.assert_untouched();
}

#[test]
fn the_table_of_bad_locks() {
    let shop = Shop::new();
    let missing = build!(shop);
    missing.expect(7, &["there is no lock small/small.lock.yaml", "hint: make it with `imagebuilder lock`"]);
    let lock = shop.lock();
    let good = shop.read(FILE);
    shop.mirror.taken("");
    let foreign = Lock { image: "other".into(), ..lock.clone() }.to_yaml();
    let strange = {
        let mut strange = lock.clone();
        strange.architecture = "arm64".into();
        strange
            .layers
            .iter_mut()
            .flat_map(|layer| &mut layer.packages)
            .for_each(|one| one.architecture = "arm64".into());
        strange.to_yaml()
    };
    let mut recipe = lock.clone();
    recipe.recipes.insert("pack".into(), 999);
    let half = &good[..good.len() / 2];
    let table: &[(&str, i32, &[&str])] = &[
        (&foreign, 7, &["for image `other`, the documents describe `small`"]),
        (&strange, 7, &["for architecture `arm64`, the documents ask for `amd64`"]),
        (&recipe.to_yaml(), 7, &["step `pack`: the lock has recipe 999 (made by imagebuilder", "this program recipe"]),
        (&good.replace("lockVersion: 2", "lockVersion: 1"), 7, &["small.lock.yaml:3:14", "has version 1", "--update"]),
        (&good.replace("lockVersion: 2", "lockVersion: 3"), 7, &["small.lock.yaml:3:14", "has version 3", "newer"]),
        (
            &good.replacen("version: \"2\"", "version: \"9\"", 1),
            7,
            &["small.lock.yaml:4:9", "changed after it was made"],
        ),
        (&good.replace("size: ", "sise: "), 3, &["small.lock.yaml:", "unknown field `sise`", "did you mean `size`?"]),
        (half, 3, &["small.lock.yaml", "damaged or not a lock"]),
        ("", 3, &["small.lock.yaml", "damaged or not a lock"]),
        ("a: [1\n", 3, &["small.lock.yaml:", "damaged or not a lock"]),
    ];
    for (text, code, words) in table {
        shop.write(FILE, text);
        let locked = shop.run(&["build", "small", "--locked"]);
        locked.expect(*code, words);
        // A lock that is there is never passed over in silence.
        assert_eq!(shop.run(&["build", "small"]).code, Some(*code));
        assert_eq!(shop.run(&["lock", "small", "--check"]).code, Some(*code));
        shop.assert_untouched();
        assert!(shop.mirror.taken("").is_empty(), "{text}");
    }
    // Whatever it was, this mends it.
    shop.run(&["lock", "small", "--update"]).expect(0, &["packages"]);
    assert_eq!(shop.read(FILE), good);
}

#[test]
fn packages_that_have_gone_or_changed_at_the_mirror() {
    let shop = Shop::new();
    shop.lock();
    std::fs::remove_dir_all(shop.path("cache/debs")).unwrap();
    let tool = "pool/tool_2_amd64.deb";
    let mut bytes = shop.mirror.state.lock().unwrap().files[tool].clone();
    shop.mirror.fault(tool, &[Fault::Status(404)]);
    shop.mirror.taken("");
    build!(shop).expect(5, &["fetching package tool", tool, "is not there", "hint: archives drop packages"]);
    shop.assert_untouched();
    *bytes.last_mut().unwrap() ^= 1;
    shop.mirror.fault(tool, &[Fault::Instead(bytes)]);
    build!(shop).expect(4, &["fetching package tool", "wrong file: its SHA-256 digest is", "hint: "]);
    shop.assert_untouched();
}

#[test]
fn an_index_that_is_replayed_or_expired_makes_no_lock() {
    let shop = Shop::new();
    shop.lock();
    let good = shop.read(FILE);
    shop.offer(&LATER, &Suite { date: now() - 86_400, ..Suite::default() });
    shop.run(&["lock", "small", "--update"]).expect(4, &["small/image.yaml:13:19", "older", "than one seen before"]);
    shop.offer(&LATER, &Suite { date: now() - 60, valid_until: Some(now() - 30), ..Suite::default() });
    shop.run(&["lock", "small", "--update"]).expect(4, &["small/image.yaml:13:19", "the index has expired"]);
    shop.mirror.fault(IN_RELEASE, &[Fault::Instead(format!("Date: {}\n", date(now())).into_bytes())]);
    shop.run(&["lock", "small", "--update"]).expect(4, &["not a clear-signed text"]);
    assert_eq!(shop.read(FILE), good);
}

// ---- snapshots ----

const STABLE: &str = "dists/stable/InRelease";
const UPDATES: &str = "dists/stable-updates/InRelease";

/// The stamp of a snapshot.
fn stamp(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).unwrap().strftime("%Y%m%dT%H%M%SZ").to_string()
}

impl Shop {
    /// A suite and its pocket in a snapshot, and a live archive that is newer.
    fn offer_snapshot(&self, at: i64, pocket: &Suite) {
        self.offer(&LATER, &Suite::default());
        let live = self.mirror.state.lock().unwrap().files.clone();
        let mut all = live.clone();
        all.extend(
            live.into_iter().map(|(path, bytes)| (path.replace("dists/stable/", "dists/stable-updates/"), bytes)),
        );
        let old = Suite { date: at - 3600, ..Suite::default() };
        self.offer(&FIRST, &old);
        let main = self.mirror.state.lock().unwrap().files.clone();
        all.extend(main.into_iter().map(|(path, bytes)| (format!("snap/{}/{path}", stamp(at)), bytes)));
        self.offer(&[("lib", "1.5", "")], pocket);
        let pocket = self.mirror.state.lock().unwrap().files.clone();
        let moved = |path: String| path.replace("dists/stable/", "dists/stable-updates/");
        all.extend(pocket.into_iter().map(|(path, bytes)| (format!("snap/{}/{}", stamp(at), moved(path)), bytes)));
        self.mirror.replace(all);
    }

    /// Documents with the suite and its pocket, from line 10 on.
    fn ask_snapshot(&self, snapshot: &str) {
        let source = format!("{}/snap/{{snapshot}}", self.mirror.url());
        let keyring: String = self.archive.public.lines().map(|line| format!("\n            {line}")).collect();
        let repository = |name: &str, suite: &str| {
            format!(
                "        {name}:
          source: {}
          snapshotSource: {source}
          suite: {suite}
          components: {{main: {{}}}}
          keyring: |{keyring}
",
                self.mirror.url()
            )
        };
        let text = format!(
            "apiVersion: airshipit.org/v1alpha1
kind: AirshipImage
metadata: {{name: small}}
spec:
  params:
    software:
      packages: {{tool: {{}}}}
    distribution:
      name: debian
      release: bookworm
      snapshot: {snapshot}
      repositories:
{}{}",
            repository("main", "stable"),
            repository("updates", "stable-updates"),
        );
        self.write("small/kustomization.yaml", "resources: [image.yaml]\n");
        self.write("small/image.yaml", &text);
    }
}

#[test]
fn a_snapshot_is_taken_whole_and_judged_at_its_time() {
    let shop = Shop::new();
    let at = now() - 10 * 86_400;
    // Expired long ago, and good at its time.
    let pocket = Suite { name: "stable-updates", date: at - 60, valid_until: Some(at + 86_400), ..Suite::default() };
    shop.offer_snapshot(at, &pocket);
    shop.ask_snapshot(&stamp(at));
    shop.mirror.taken("");
    shop.run(&["lock", "small"]).expect(0, &["3 packages locked"]);
    assert_eq!(shop.versions(), ["base=1", "lib=1.5", "tool=2"]);
    assert!(shop.mirror.taken("").iter().all(|path| path.starts_with("snap/")), "only the snapshot is asked");
    let text = shop.read(FILE);
    assert!(text.contains(&format!("snapshot: {}}}", stamp(at))) && text.contains("/snap/20"), "{text}");
    // Another snapshot is another lock.
    shop.ask_snapshot(&stamp(at + 1));
    let words = [format!("snapshot `{}` is now `{}`", stamp(at), stamp(at + 1))];
    shop.run(&["lock", "small", "--check"]).expect(7, &[&words[0]]);
}

/// One poisoned pocket, in every way, while the live archive has everything: no lock is made of it.
#[test]
fn a_snapshot_fails_closed_for_every_pocket_and_component() {
    let at = now() - 10 * 86_400;
    let good = || Suite { name: "stable-updates", date: at - 60, ..Suite::default() };
    let snap = |path: &str| format!("snap/{}/{path}", stamp(at));
    const INDEX: &str = "dists/stable-updates/main/binary-amd64/Packages.xz";
    type Poison<'a> = (Suite, Box<dyn Fn(&Shop) + 'a>, i32, &'a [&'a str]);
    let nothing = || Box::new(|_: &Shop| {});
    let table: Vec<Poison<'_>> = vec![
        (
            good(),
            Box::new(|shop| _ = shop.mirror.state.lock().unwrap().files.remove(&snap(UPDATES))),
            5,
            &["updating repository updates", "is not there", "the live archive is not asked"],
        ),
        (
            good(),
            Box::new(|shop| shop.mirror.fault(&snap(UPDATES), &vec![Fault::Status(503); 9])),
            5,
            &["updating repository updates", "giving up", "the live archive is not asked"],
        ),
        (
            good(),
            Box::new(|shop| _ = shop.mirror.state.lock().unwrap().files.remove(&snap(INDEX))),
            5,
            &["updating repository updates", INDEX, "the live archive is not asked"],
        ),
        (
            // The live archive behind the address of a snapshot.
            good(),
            Box::new(|shop| {
                let mut state = shop.mirror.state.lock().unwrap();
                let live = Suite { name: "stable-updates", ..Suite::default() }.files_of(&shop.archive, &[]);
                state.files.insert(snap(UPDATES), live[IN_RELEASE].clone());
            }),
            4,
            &["updating repository updates", "from the future"],
        ),
        (Suite { date: at + 60, ..good() }, nothing(), 4, &["repository updates", "is newer", "than snapshot"]),
        (Suite { valid_until: Some(at - 30), ..good() }, nothing(), 4, &["repository updates", "has expired"]),
        (Suite { name: "stable", ..good() }, nothing(), 4, &["suite `stable-updates` was asked for"]),
        (
            good(),
            Box::new(|shop| {
                let text = shop
                    .read("small/image.yaml")
                    .replace("components: {main: {}}", "components: {main: {}, extra: {}}");
                shop.write("small/image.yaml", &text);
            }),
            3,
            &["no component `extra`"],
        ),
    ];
    for (pocket, poison, code, words) in table {
        let shop = Shop::new();
        shop.offer_snapshot(at, &pocket);
        shop.ask_snapshot(&stamp(at));
        poison(&shop);
        shop.mirror.taken("");
        shop.run(&["lock", "small"]).expect(code, words);
        assert!(!shop.path(FILE).exists());
        let asked = shop.mirror.taken("");
        assert!(asked.iter().all(|path| path.starts_with("snap/")), "{asked:?}");
        assert!(shop.mirror.state.lock().unwrap().files.contains_key(STABLE), "the live archive is there");
    }
}

#[test]
fn snapshots_that_make_no_sense() {
    let shop = Shop::new();
    shop.ask_snapshot("yesterday");
    shop.run(&["lock", "small"]).expect(3, &["`yesterday` is not the time stamp of a snapshot", "20261101T000000Z"]);
    shop.ask_snapshot(&stamp(now() + 86_400));
    shop.run(&["lock", "small"]).expect(3, &["lies in the future"]);
}
