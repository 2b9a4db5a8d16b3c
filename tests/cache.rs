//! The cache against the real program: a small archive of made-up packages is built into images again and again, with
//! processes that are killed at any moment, bytes that flip, builds side by side, and the verbs that look after it all.
//! Builds need a user namespace; where the machine refuses one, those tests say so and end.

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Instant;

use support::mirror::{Archive, Mirror, Suite, deb_with};

const STAMP: i64 = 1_600_000_000;

type File = (String, u32, Vec<u8>);

/// Does to the database what dpkg does there, with nothing but a shell.
const DPKG: &str = r#"#!/bin/sh
case "$*" in
*--configure*) ;;
*) exit 0 ;;
esac
all=
while IFS= read -r line; do
  case "$line" in
  "Status: "*) line="Status: install ok installed" ;;
  esac
  all="$all$line
"
done < /var/lib/dpkg/status
printf '%s' "$all" > /var/lib/dpkg/status
"#;

const UPDATE_INITRAMFS: &str = "#!/bin/sh\nprintf 'initramfs of %s' \"$3\" > \"/boot/initrd.img-$3\"\n";

fn text(path: &str, mode: u32, text: &str) -> File {
    (path.into(), mode, text.as_bytes().to_vec())
}

/// The shell of this machine, with its libraries.
fn shell() -> Option<Vec<File>> {
    let ldd = Command::new("ldd").arg("/bin/sh").output().ok().filter(|output| output.status.success())?;
    let mut files = vec![("usr/bin/sh".to_owned(), 0o755, std::fs::read("/bin/sh").ok()?)];
    for word in String::from_utf8_lossy(&ldd.stdout).split_whitespace().filter(|word| word.starts_with('/')) {
        let place = word.strip_prefix("/usr").unwrap_or(word);
        files.push((format!("usr{place}"), 0o755, std::fs::read(word).ok()?));
    }
    Some(files)
}

/// An archive, a mirror of it, documents, a cache.
struct Shop {
    folder: tempfile::TempDir,
    archive: Archive,
    mirror: Mirror,
}

impl Shop {
    /// Nothing where images cannot be built.
    fn new() -> Option<Shop> {
        let Some(mut base) = shell() else {
            println!("skipped: no shell that could be copied");
            return None;
        };
        base.extend([
            text("usr/bin/dpkg", 0o755, DPKG),
            text("usr/sbin/update-initramfs", 0o755, UPDATE_INITRAMFS),
            text("etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/sh\n"),
            text("etc/group", 0o644, "root:x:0:\n"),
            text("etc/shadow", 0o640, "root:*:19000:0:99999:7:::\n"),
            text("etc/gshadow", 0o640, "root:*::\n"),
            text("boot/vmlinuz-1", 0o644, "a kernel"),
            text("etc/machine-id", 0o644, ""),
            text("usr/sbin/update-grub", 0o755, "#!/bin/sh\n"),
            text("usr/sbin/grub-mkconfig", 0o755, "#!/bin/sh\n"),
            text("etc/kernel/postinst.d/zz-update-grub", 0o755, "#!/bin/sh\n"),
            text("usr/lib/modules/1/modules.dep", 0o644, ""),
            text("usr/lib/os-release", 0o644, "ID=debian\n"),
            ("etc/os-release".to_owned(), 0, b"../usr/lib/os-release".to_vec()),
            text("usr/sbin/init", 0o755, "#!/bin/sh\n"),
            text("usr/lib/shim/shimx64.efi.signed", 0o644, "shim"),
            text("usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed", 0o644, "grub"),
            text("root/.profile", 0o644, ""),
            text("tmp/.keep", 0o644, ""),
        ]);
        let archive = Archive::new();
        let mirror = Mirror::start(BTreeMap::new());
        let shop = Shop { folder: tempfile::tempdir().unwrap(), archive, mirror };
        let noise = |seed: u32, length: u32| -> Vec<u8> {
            (0..length).map(|at| (at.wrapping_mul(2_654_435_761).rotate_left(seed) >> 13) as u8).collect()
        };
        let tool =
            [("usr/lib/tool/data".to_owned(), 0o644, noise(1, 3_000_000)), text("usr/bin/tool", 0o755, "#!/bin/sh\n")];
        let other = [("usr/lib/other/data".to_owned(), 0o644, noise(7, 900_000))];
        let offers = [("base", "Essential: yes\n", &base[..]), ("tool", "", &tool[..]), ("other", "", &other[..])];
        let offers: Vec<(String, String, Vec<u8>)> = offers
            .iter()
            .map(|(name, relations, files)| {
                let control = format!("Package: {name}\nVersion: 1\nArchitecture: amd64\n{relations}");
                (format!("pool/{name}_1_amd64.deb"), control.clone(), deb_with(&control, STAMP, files))
            })
            .collect();
        shop.mirror.replace(Suite::default().files_of(&shop.archive, &offers));
        shop.ask("tool: {}", 4_000_001);
        let first = shop.build("first");
        if !first.status.success() {
            let said = said(&first);
            if said.contains("doctor") {
                println!("skipped: {said}");
                return None;
            }
            panic!("{said}");
        }
        Some(shop)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Documents that want these packages and this limit.
    fn ask(&self, packages: &str, limit: u32) {
        let keyring: String = self.archive.public.lines().map(|line| format!("\n            {line}")).collect();
        std::fs::create_dir_all(self.path("small")).unwrap();
        std::fs::write(self.path("small/kustomization.yaml"), "resources: [image.yaml]\n").unwrap();
        let text = format!(
            "apiVersion: airshipit.org/v1alpha1
kind: AirshipImage
metadata: {{name: small}}
spec:
  params:
    software:
      packages: {{{packages}}}
    kernel:
      sysctl: {{kernel.pid_max: {limit}}}
    storage:
      qcow_capacity: 200M
      partitions:
      - {{mount: /boot/efi, size: 40MiB, flags: [esp], filesystem: {{type: vfat}}}}
      - {{mount: /, size: 100MiB, filesystem: {{type: ext4}}}}
    distribution:
      name: debian
      release: bookworm
      repositories:
        test:
          source: {}
          suite: stable
          components: {{main: {{}}}}
          keyring: |{keyring}
---
apiVersion: airshipit.org/v1alpha1
kind: ImageConfiguration
metadata: {{name: small}}
spec:
  image: {{type: [qcow, tar], outputFileName: small.qcow2}}
",
            self.mirror.url()
        );
        std::fs::write(self.path("small/image.yaml"), text).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        self.command_with("cache", arguments)
    }

    fn command_with(&self, cache: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_imagebuilder"));
        command.args(arguments).args(["--cache-dir", cache, "--progress", "plain"]);
        command.current_dir(self.folder.path()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.env_remove("RUST_LOG").env_remove("SOURCE_DATE_EPOCH").env_remove("IMAGEBUILDER_CACHE_SIZE");
        command.env("NO_COLOR", "1").env("no_proxy", "*");
        command
    }

    fn build(&self, out: &str) -> Output {
        self.command(&["build", "small", "--output-dir", out]).output().unwrap()
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn ok(output: &Output) -> String {
    assert!(output.status.success(), "{}", said(output));
    said(output)
}

/// Both files of an image.
type Image = [Vec<u8>; 2];

impl Shop {
    fn image(&self, out: &str) -> Image {
        ["small.qcow2", "small.tar"].map(|name| std::fs::read(self.path(out).join(name)).unwrap())
    }

    /// The same image, made of nothing that was there before.
    fn clean(&self) -> Image {
        let run = self.command_with("other-cache", &["build", "small", "--output-dir", "clean"]).output().unwrap();
        ok(&run);
        std::fs::remove_dir_all(self.path("other-cache")).unwrap();
        self.image("clean")
    }

    /// Files of the cache with this extension below this folder.
    fn cached(&self, folder: &str, extension: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut todo = vec![self.path("cache").join(folder)];
        while let Some(folder) = todo.pop() {
            for path in std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()) {
                if path.is_dir() {
                    todo.push(path);
                } else if path.extension().unwrap_or_default() == extension {
                    found.push(path);
                }
            }
        }
        found.sort();
        found
    }
}

/// What a build did, from what it said: steps that were made.
fn made(said: &str) -> Vec<&str> {
    let steps = said.lines().filter_map(|line| line.strip_suffix(" ..."));
    steps.filter(|step| ["unpack", "initramfs"].iter().any(|kind| step.starts_with(kind))).collect()
}

fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    // A layer may add no contents.
    bytes.get_mut(at).into_iter().for_each(|byte| *byte ^= 0x20);
    std::fs::write(path, bytes).unwrap();
}

/// Every fast path there is, and none: the same bytes.
#[test]
fn a_second_build_redoes_what_changed_only() {
    let Some(shop) = Shop::new() else { return };
    let first = shop.image("first");
    assert!(shop.clean() == first, "a clean cache changes no byte");
    let again = ok(&shop.build("again"));
    assert!(made(&again).is_empty() && again.contains("layer role: unchanged"), "{again}");
    assert!(shop.image("again") == first);
    // One value: nothing is installed, and no cluster of before is compressed.
    shop.ask("tool: {}", 4_000_002);
    let before = shop.cached("clusters-v2", "pack").iter().map(|path| path.metadata().unwrap().len()).sum::<u64>();
    let changed = ok(&shop.build("changed"));
    assert!(made(&changed).is_empty(), "{changed}");
    let after = shop.cached("clusters-v2", "pack").iter().map(|path| path.metadata().unwrap().len()).sum::<u64>();
    assert!(after - before < before / 4, "{before} bytes of clusters, then {after}");
    let image = shop.image("changed");
    assert!(image != first && shop.clean() == image, "as made of nothing");
    // One package more in a role: that layer alone, and the initramfs, which may depend on any file.
    shop.ask("tool: {}, other: {}", 4_000_002);
    let more = ok(&shop.build("more"));
    assert_eq!(made(&more), ["unpack role", "initramfs 1"]);
    assert!(more.contains("layer distribution: unchanged"), "{more}");
    let image = shop.image("more");
    assert!(shop.clean() == image);
    // Without the cache of clusters, of answers, of both.
    for folders in [&["clusters-v2"][..], &["answers-v1"], &["clusters-v2", "answers-v1"]] {
        for folder in folders {
            std::fs::remove_dir_all(shop.path("cache").join(folder)).unwrap();
        }
        ok(&shop.build("without"));
        assert!(shop.image("without") == image, "without {folders:?}");
    }
}

/// Packages are decompressed once: what was made of them goes, and is made again of what is kept of them.
#[test]
fn packages_are_decompressed_once() {
    let Some(shop) = Shop::new() else { return };
    let wanted = shop.image("first");
    let forget_steps = || shop.cached("trees-v2", "tree").iter().for_each(|tree| std::fs::remove_file(tree).unwrap());
    let records = || -> Vec<PathBuf> {
        let all = shop.cached("trees-v2", "records-v1").into_iter();
        all.filter(|path| !path.parent().unwrap().ends_with("damaged")).collect()
    };
    let kept = records();
    assert_eq!(kept.len(), 2, "of two layers");
    let packs = || shop.cached("trees-v2", "pack").iter().map(|path| path.metadata().unwrap().len()).sum::<u64>();
    let before = packs();
    forget_steps();
    let again = ok(&shop.build("again"));
    assert_eq!(made(&again), ["unpack base", "unpack role", "initramfs 1"]);
    assert!(shop.image("again") == wanted);
    assert_eq!(records(), kept, "nothing was decompressed");
    assert!(packs() - before < before / 10, "contents are referred to where they are");
    // A byte of what is kept, anywhere: found, said, and made good.
    for number in 0..kept.len() {
        for place in [0.0, 0.3, 0.99] {
            forget_steps();
            let path = records().remove(number);
            flip(&path, (path.metadata().unwrap().len() as f64 * place) as usize);
            let out = ok(&shop.build("again"));
            assert!(shop.image("again") == wanted, "{} at {place}: {out}", path.display());
            assert!(out.contains("the cache is damaged") && out.contains("decompressed again"), "{out}");
        }
    }
    // Other layers of the same packages.
    shop.ask("tool: {layer: base}, other: {}", 4_000_001);
    let other = ok(&shop.build("other"));
    assert_eq!(made(&other).iter().filter(|step| step.contains("base")).count(), 2, "{other}");
    assert!(shop.clean() == shop.image("other"), "as made of nothing");
    assert_eq!(records().len(), 3, "only what was new");
    let path = records().remove(0);
    flip(&path, path.metadata().unwrap().len() as usize - 1);
    let verify = shop.command(&["cache", "verify"]).output().unwrap();
    assert_eq!(verify.status.code(), Some(8), "{}", said(&verify));
    assert!(said(&verify).contains(".records-v1"), "{}", said(&verify));
    let list = ok(&shop.command(&["cache", "ls"]).output().unwrap());
    assert!(list.contains("packages decompressed"), "{list}");
    ok(&shop.command(&["cache", "prune", "--keep", "0"]).output().unwrap());
    assert!(records().is_empty() && shop.cached("trees-v2", "pack").is_empty());
}

/// A byte anywhere in the cache: found by its digest, what it belongs to made again once, and the same image.
#[test]
fn a_flipped_byte_is_found_and_made_good() {
    let Some(shop) = Shop::new() else { return };
    let wanted = shop.image("first");
    let kinds =
        [("trees-v2", "pack"), ("trees-v2", "tree"), ("clusters-v2", "pack"), ("answers-v1", ""), ("debs", "deb")];
    for (folder, extension) in kinds {
        for number in 0..shop.cached(folder, extension).len() {
            for place in [0.0, 0.5, 0.99] {
                let Some(path) = shop.cached(folder, extension).get(number).cloned() else { continue };
                flip(&path, (path.metadata().unwrap().len() as f64 * place) as usize);
                if extension == "deb" || extension == "pack" && folder == "trees-v2" {
                    // Else nobody looks at them.
                    std::fs::remove_dir_all(shop.path("cache/clusters-v2")).unwrap();
                }
                let out = ok(&shop.build("again"));
                assert!(shop.image("again") == wanted, "{} at {place}: {out}", path.display());
            }
        }
        let quiet = ok(&shop.build("again"));
        assert!(!quiet.contains("damaged"), "it is found once: {quiet}");
    }
    // Layers below another one were not looked at.
    _ = shop.command(&["cache", "verify"]).output().unwrap();
    let verified = ok(&shop.command(&["cache", "verify"]).output().unwrap());
    assert!(verified.contains("is what its digests say"), "{verified}");
}

/// The image that is there is one that was built, with its own checksum.
fn check_published(shop: &Shop, wanted: &Image) {
    for (name, wanted) in ["small.qcow2", "small.tar"].iter().zip(wanted) {
        let place = shop.path("out").join(name);
        if let Ok(image) = std::fs::read(&place) {
            assert!(image == *wanted, "half an image");
        }
        if let Ok(sum) = std::fs::read_to_string(
            place.with_extension(format!("{}.sha256", place.extension().unwrap().to_string_lossy())),
        ) {
            assert_eq!(sum.trim(), imagebuilder::tree::Digest::of(wanted).to_hex());
        }
    }
}

#[test]
fn killed_at_fifty_moments() {
    let Some(shop) = Shop::new() else { return };
    let wanted = shop.image("first");
    let began = Instant::now();
    shop.clean();
    let whole = began.elapsed();
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let mut state = u64::from(clock.subsec_nanos()) | 1;
    let mut random = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as f64 / f64::from(1u32 << 31)
    };
    std::fs::remove_dir_all(shop.path("cache")).unwrap();
    let mut ended = 0;
    for turn in 0..50 {
        // Now with nothing, now with a part, now with all of it.
        match turn % 6 {
            0 => _ = std::fs::remove_dir_all(shop.path("cache/trees-v2")),
            // What is kept of packages stays.
            5 => shop.cached("trees-v2", "tree").iter().for_each(|tree| std::fs::remove_file(tree).unwrap()),
            1 => _ = std::fs::remove_dir_all(shop.path("cache/clusters-v2")),
            2 => _ = std::fs::remove_dir_all(shop.path("out")),
            3 => _ = std::fs::remove_dir_all(shop.path("cache/debs")),
            _ => {}
        }
        let moment = whole.mul_f64(random());
        let mut child = shop
            .command(&["build", "small", "--output-dir", "out"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(moment);
        ended += u32::from(child.try_wait().unwrap().is_some());
        child.kill().unwrap();
        child.wait().unwrap();
        check_published(&shop, &wanted);
    }
    println!("{ended} of 50 had ended before");
    // By itself: nobody cleans up.
    let said = ok(&shop.build("out"));
    assert!(!said.contains("damaged"), "{said}");
    assert!(shop.image("out") == wanted);
    let left: Vec<_> = std::fs::read_dir(shop.path("out")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().starts_with('.')), "{left:?}");
    assert!(shop.cached("work", "").is_empty());
    let verified = ok(&shop.command(&["cache", "verify"]).output().unwrap());
    assert!(verified.contains("is what its digests say"), "{verified}");
    let names = |folder: &str| -> Vec<String> {
        let entries = std::fs::read_dir(shop.path("cache").join(folder)).unwrap();
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
    };
    assert!(names("trees-v2").iter().all(|name| !name.starts_with(".pack-") && !name.starts_with(".tree-")));
    assert!(names("clusters-v2").iter().all(|name| !name.starts_with(".new-")));
}

#[test]
fn builds_side_by_side_share_the_work() {
    let Some(shop) = Shop::new() else { return };
    let wanted = shop.image("first");
    std::fs::remove_dir_all(shop.path("cache")).unwrap();
    let children: Vec<_> = (0..3)
        .map(|at| shop.command(&["build", "small", "--output-dir", &format!("out{at}")]).spawn().unwrap())
        .collect();
    let said: Vec<String> = children.into_iter().map(|child| ok(&child.wait_with_output().unwrap())).collect();
    let mut steps: Vec<&str> = said.iter().flat_map(|said| made(said)).collect();
    steps.sort_unstable();
    assert_eq!(steps, ["initramfs 1", "unpack base", "unpack role"], "each once");
    for at in 0..3 {
        assert!(shop.image(&format!("out{at}")) == wanted);
    }
    ok(&shop.command(&["cache", "verify"]).output().unwrap());
}

#[test]
fn the_verbs_list_shrink_and_check() {
    let Some(shop) = Shop::new() else { return };
    let wanted = shop.image("first");
    let run = |arguments: &[&str]| shop.command(&[&["cache"], arguments].concat()).output().unwrap();
    let list = ok(&run(&["ls"]));
    let rows: Vec<Vec<&str>> = list.lines().map(|line| line.split_whitespace().collect()).collect();
    // What is made while the initramfs is made may be kept or given up.
    let clusters = rows.iter().find(|row| row.first() == Some(&"clusters")).and_then(|row| row[1].parse().ok());
    assert!(clusters.is_some_and(|count: u32| (2..=4).contains(&count)), "{list}");
    for start in [["packages", "2"], ["steps", "4"], ["unpacked", "2"], ["damaged", "0"]] {
        assert!(rows.iter().any(|row| row.starts_with(&start)), "{start:?} in {list}");
    }
    let all: serde_json::Value = serde_json::from_slice(&run(&["ls", "--all", "-o", "json"]).stdout).unwrap();
    let all = all.as_array().unwrap();
    let steps: Vec<_> = all.iter().filter(|item| item["area"] == "steps").collect();
    let packs: Vec<&serde_json::Value> = steps.iter().flat_map(|step| step["needs"].as_array().unwrap()).collect();
    assert!(
        all.iter()
            .filter(|item| item["area"] == "contents" && item["size"] != 0)
            .all(|item| packs.contains(&&item["name"]))
    );
    assert!(ok(&run(&["ls", "--all"])).contains("of 3 steps"), "the base's contents");
    // What is of no use: a store of another version, something damaged.
    std::fs::create_dir(shop.path("cache/trees-v1")).unwrap();
    std::fs::write(shop.path("cache/trees-v1/old"), [1; 5000]).unwrap();
    let deb = shop.cached("debs", "deb").remove(0);
    flip(&deb, 99);
    let verify = run(&["verify"]);
    assert_eq!(verify.status.code(), Some(8), "{}", said(&verify));
    assert!(said(&verify).contains("damaged: debs/"), "{}", said(&verify));
    let dry = ok(&run(&["prune", "--dry-run"]));
    assert!(dry.contains("2 items") && dry.contains("trees-v1") && dry.contains(".damaged"), "{dry}");
    assert!(shop.path("cache/trees-v1").exists());
    ok(&run(&["prune"]));
    assert!(!shop.path("cache/trees-v1").exists() && shop.cached("debs", "damaged").is_empty());
    assert!(ok(&shop.build("again")).contains("layer role: unchanged"), "what is of use stays");
    assert!(shop.image("again") == wanted);
    ok(&run(&["prune", "--older-than", "1d"]));
    assert_eq!(shop.cached("trees-v2", "tree").len(), 4);
    ok(&run(&["prune", "--keep", "0"]));
    for (folder, extension) in [("trees-v2", "tree"), ("trees-v2", "pack"), ("trees-v2", "lock"), ("debs", "deb")] {
        assert!(shop.cached(folder, extension).is_empty(), "{folder} {extension}");
    }
    assert_eq!(shop.cached("indexes/seen", "").len(), 1, "what keeps a mirror from going back stays");
    ok(&shop.build("again"));
    assert!(shop.image("again") == wanted);
    for wrong in [&["prune", "--keep", "much"][..], &["prune", "--older-than", "30"], &["shrink"]] {
        assert_eq!(run(wrong).status.code(), Some(2), "{wrong:?}");
    }
}

#[test]
fn a_build_keeps_the_cache_below_its_size() {
    let Some(shop) = Shop::new() else { return };
    let wanted = shop.image("first");
    let size = || -> u64 {
        let items: serde_json::Value =
            serde_json::from_slice(&shop.command(&["cache", "ls", "--all", "-o", "json"]).output().unwrap().stdout)
                .unwrap();
        items.as_array().unwrap().iter().map(|item| item["size"].as_u64().unwrap()).sum()
    };
    let whole = size();
    let limit = whole / 2;
    let build =
        |size: &str| shop.command(&["build", "small", "--output-dir", "out", "--cache-size", size]).output().unwrap();
    assert!(!ok(&build("0")).contains("the cache was larger"));
    assert_eq!(size(), whole);
    let said = ok(&build(&limit.to_string()));
    assert!(said.contains("the cache was larger than"), "{said}");
    assert!(size() <= limit, "{} of {limit}", size());
    ok(&build("0"));
    assert!(shop.image("out") == wanted);
}

#[test]
fn nothing_is_taken_from_under_a_build() {
    use std::io::{BufRead, BufReader};
    let Some(shop) = Shop::new() else { return };
    // As a build holds it.
    let store = imagebuilder::tree::store::Store::open(&shop.path("cache")).unwrap();
    let before = shop.cached("trees-v2", "tree");
    let mut child = shop.command(&["cache", "prune", "--keep", "0"]).spawn().unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let waits = lines.map_while(Result::ok).find(|line| line.contains("waiting: a build uses this cache"));
    assert!(waits.is_some() && child.try_wait().unwrap().is_none());
    assert_eq!(shop.cached("trees-v2", "tree"), before);
    // A build with a small limit leaves it to the other one.
    ok(&shop.command(&["build", "small", "--output-dir", "out", "--cache-size", "1K"]).output().unwrap());
    assert_eq!(shop.cached("trees-v2", "tree"), before);
    drop(store);
    assert!(child.wait().unwrap().success());
    assert!(shop.cached("trees-v2", "tree").is_empty());
}
