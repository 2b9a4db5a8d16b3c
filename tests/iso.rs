//! ISOs of a live system: what is made again and what is not when only the seed has changed; what is in them, by our own
//! readers and by isoinfo; what is refused.

#[path = "support/disk.rs"]
mod disk;
#[path = "support/iso.rs"]
mod iso;

use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::Arc;

use imagebuilder::build::pack::Format;
use imagebuilder::build::reseed::Base;
use imagebuilder::error::{Error, Result};
use imagebuilder::format::disk::sums::Digests;
use imagebuilder::inspect::compare;
use imagebuilder::inspect::image::Image;
use imagebuilder::inspect::listing::Found;
use imagebuilder::report::{Reporter, Timing};
use imagebuilder::tree::clusters::{self, Clusters};
use imagebuilder::tree::{Content, Digest, Entry, Kind, Meta, ReadAt};
use iso::{EPOCH, build, live, live_system, path, put};

const ONE: &[u8] = b"#cloud-config\nhostname: one\n";

fn open(cache: &std::path::Path) -> Clusters {
    Clusters::open(cache, EPOCH, &Reporter::quiet()).unwrap()
}

/// What the step that packs the squashfs says of itself.
fn squashfs(timings: &[Timing]) -> &str {
    let steps: Vec<&Timing> = timings.iter().filter(|timing| timing.name == "squashfs").collect();
    assert_eq!(steps.len(), 1, "{timings:?}");
    &steps[0].detail
}

#[test]
fn with_another_seed_nothing_is_compressed_again_wherever_the_iso_goes() {
    let (tree, folder, cache) = (live_system(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let at = |name: &str| folder.path().join(name);
    let (first, timings) = build(&tree, &live(ONE), Some(&open(cache.path())), Format::Iso, &at("one")).unwrap();
    assert!(!squashfs(&timings).contains("cache"), "{timings:?}");
    // A run of its own, to another folder, with nothing of the first but the cache.
    std::fs::remove_file(at("one")).unwrap();
    let site = live(b"#cloud-config\nhostname: another-and-longer\n");
    let (packed, timings) = build(&tree, &site, Some(&open(cache.path())), Format::Iso, &at("site")).unwrap();
    assert!(squashfs(&timings).ends_with("all blocks taken from the cache"), "{timings:?}");
    let (fresh, timings) = build(&tree, &site, None, Format::Iso, &at("fresh")).unwrap();
    assert!(!squashfs(&timings).contains("cache"), "{timings:?}");
    assert!(std::fs::read(at("site")).unwrap() == std::fs::read(at("fresh")).unwrap());
    assert_eq!(packed.sums[0], fresh.sums[0]);
    assert_ne!(packed.sums[0], first.sums[0]);
    // The netboot set has the same squashfs.
    let (_, timings) = build(&tree, &site, Some(&open(cache.path())), Format::Netboot, &at("n.ipxe")).unwrap();
    assert!(squashfs(&timings).ends_with("all blocks taken from the cache"), "{timings:?}");
}

#[test]
fn of_a_changed_tree_only_what_changed_is_compressed() {
    let (mut tree, folder, cache) = (live_system(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let at = |name: &str| folder.path().join(name);
    build(&tree, &live(ONE), Some(&open(cache.path())), Format::Iso, &at("one")).unwrap();
    put(&mut tree, "usr/share/zoo", b"new\n".to_vec());
    let (_, timings) = build(&tree, &live(ONE), Some(&open(cache.path())), Format::Iso, &at("two")).unwrap();
    let detail = squashfs(&timings);
    let words: Vec<&str> = detail.rsplit(", ").next().unwrap().split(' ').collect();
    let (kept, all): (u64, u64) = (words[0].parse().unwrap(), words[2].parse().unwrap());
    assert_eq!(all - kept, 1, "{detail}");
    build(&tree, &live(ONE), None, Format::Iso, &at("fresh")).unwrap();
    assert!(std::fs::read(at("two")).unwrap() == std::fs::read(at("fresh")).unwrap());
}

#[test]
fn damaged_blocks_of_the_cache_are_made_again() {
    let (tree, folder, cache) = (live_system(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let at = |name: &str| folder.path().join(name);
    build(&tree, &live(ONE), Some(&open(cache.path())), Format::Iso, &at("one")).unwrap();
    let mut touched = 0;
    for file in std::fs::read_dir(cache.path().join(clusters::FOLDER)).unwrap() {
        let file = file.unwrap().path();
        let mut bytes = std::fs::read(&file).unwrap();
        bytes[10] ^= 1;
        std::fs::write(&file, bytes).unwrap();
        touched += 1;
    }
    assert!(touched > 0);
    let (_, timings) = build(&tree, &live(ONE), Some(&open(cache.path())), Format::Iso, &at("two")).unwrap();
    assert!(!squashfs(&timings).contains("all blocks"), "{timings:?}");
    assert!(std::fs::read(at("one")).unwrap() == std::fs::read(at("two")).unwrap());
}

/// Line ends of another system, bytes that are no text line, and no line end at the end.
const ODD: &[u8] = b"#cloud-config\r\nhostname: one\r\n# \xc3\xa4 \t \r\nruncmd: []";

#[test]
fn the_seed_is_on_the_iso_byte_by_byte() {
    let folder = tempfile::tempdir().unwrap();
    let iso = folder.path().join("odd.iso");
    build(&live_system(), &live(ODD), None, Format::Iso, &iso).unwrap();
    let mounted = Image::open(&iso).unwrap().mounted().unwrap();
    let Found::File(data) = &mounted.listing.get(&path("run/live/medium/openstack/latest/user_data")).unwrap().found
    else {
        panic!("no file");
    };
    assert_eq!(data.bytes(1000).unwrap(), ODD);
    let seed = Base::open(&iso).unwrap().seed().unwrap();
    assert_eq!(seed.user_data, ODD);
    let arguments = ["-R", "-i", iso.to_str().unwrap(), "-x", "/openstack/latest/user_data"];
    match Command::new("isoinfo").args(arguments).output() {
        Ok(ran) => assert_eq!(ran.stdout, ODD),
        Err(_) => println!("skipped: isoinfo is not installed"),
    }
}

#[test]
fn an_iso_is_read_back_as_the_system_that_it_starts() {
    let (tree, folder) = (live_system(), tempfile::tempdir().unwrap());
    let at = |name: &str| folder.path().join(name);
    build(&tree, &live(ONE), None, Format::Iso, &at("one.iso")).unwrap();
    build(&tree, &live(b"#cloud-config\nhostname: two\n"), None, Format::Iso, &at("two.iso")).unwrap();
    let image = Image::open(&at("one.iso")).unwrap();
    assert_eq!((image.container.name(), image.squashfs()), ("iso", Some(("zstd", Some(3)))));
    let found = image.tree().unwrap();
    for (path, entry) in tree.iter().filter(|(path, _)| !path.is_root() && !path.to_string().starts_with("/boot")) {
        assert_eq!(found.get(path).map(|other| &other.kind), Some(&entry.kind), "{path}");
    }
    assert!(!found.contains(&path("boot/vmlinuz-1")) && found.contains(&path("run/live/medium/boot/vmlinuz")));
    assert!(!found.contains(&path("run/live/medium/live/filesystem.squashfs")), "it is the root");
    // Two sites differ in their seeds alone.
    let other = Image::open(&at("two.iso")).unwrap();
    let report = compare::report(&image, &other, compare::Limits::default()).unwrap();
    let paths: Vec<String> = report.paths.iter().map(|change| change.path.to_string()).collect();
    let folder = "/run/live/medium/openstack/latest";
    assert_eq!(paths, [format!("{folder}/meta_data.json"), format!("{folder}/user_data")]);
    // A byte that is in no file has a name, too.
    let mut bytes = std::fs::read(at("one.iso")).unwrap();
    bytes[440] ^= 1;
    std::fs::write(at("two.iso"), bytes).unwrap();
    let first = imagebuilder::inspect::difference(&at("one.iso"), &at("two.iso")).unwrap().unwrap();
    assert!(first.to_string().contains("MBR"), "{first}");
}

#[test]
fn secrets_are_for_the_owner_only() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let mode = |name: &str| std::fs::metadata(at(name)).unwrap().permissions().mode() & 0o777;
    let secret = b"#cloud-config\nchpasswd: {list: 'root:hunter2'}\n";
    build(&live_system(), &live(ONE), None, Format::Iso, &at("plain.iso")).unwrap();
    build(&live_system(), &live(secret), None, Format::Iso, &at("secret.iso")).unwrap();
    assert_eq!((mode("plain.iso") & 0o400, mode("secret.iso")), (0o400, 0o600));
    assert_ne!(mode("plain.iso"), 0o600);
    let reseed = |base: &str, user_data: &[u8], to: &str| {
        Base::open(&at(base)).unwrap().write(&iso::seed_of(user_data), &at(to), Digests::BOTH).unwrap();
    };
    reseed("plain.iso", secret, "site.iso");
    assert_eq!(mode("site.iso"), 0o600);
    assert!(std::fs::read(at("site.iso")).unwrap() == std::fs::read(at("secret.iso")).unwrap());
}

#[test]
fn a_full_disk_is_a_matter_of_space() {
    let folder = tempfile::tempdir().unwrap();
    for (name, format) in [("x.iso", Format::Iso), ("x.squashfs", Format::Netboot)] {
        let full = folder.path().join(name);
        std::os::unix::fs::symlink("/dev/full", &full).unwrap();
        let to = if format == Format::Iso { full } else { folder.path().join("x.ipxe") };
        let error = build(&live_system(), &live(ONE), None, format, &to).unwrap_err();
        assert_eq!(error.kind().exit_code(), 6, "{error}");
        assert!(error.to_string().contains("writing the squashfs"), "{error}");
    }
}

/// Bytes that cannot be read.
struct Gone;

impl ReadAt for Gone {
    fn read_at(&self, _: &mut [u8], _: u64) -> Result<()> {
        Err(Error::build("the bytes are gone"))
    }
}

#[test]
fn what_fails_in_the_squashfs_is_said_and_nothing_is_kept() {
    let (mut tree, folder, cache) = (live_system(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let content = Content::elsewhere(Digest::of(b"x"), 1 << 20, Arc::new(Gone));
    let entry = Entry { meta: Meta::root(0o644), kind: Kind::File(content), origin: "test".into() };
    tree.put(&path("usr/lib/gone"), entry).unwrap();
    let clusters = open(cache.path());
    let to = folder.path().join("x.iso");
    let error = build(&tree, &live(ONE), Some(&clusters), Format::Iso, &to).unwrap_err();
    assert!(error.to_string().contains("writing the squashfs: the bytes are gone"), "{error}");
    drop(clusters);
    let packs = std::fs::read_dir(cache.path().join(clusters::FOLDER)).unwrap().map(|file| file.unwrap());
    assert!(
        packs.filter(|file| file.metadata().unwrap().len() > 100_000).count() == 0,
        "blocks of a failed run are kept"
    );
}

#[test]
fn access_lists_that_get_lost_are_named() {
    let (mut tree, folder) = (live_system(), tempfile::tempdir().unwrap());
    tree.get_mut(&path("usr/lib/text"))
        .unwrap()
        .meta
        .xattrs
        .insert(b"system.posix_acl_access".to_vec(), vec![2, 0, 0, 0]);
    let said = iso::said(&tree, &live(ONE), &folder.path().join("x.iso"));
    assert!(said.iter().any(|line| line.contains("access lists") && line.contains("/usr/lib/text")), "{said:?}");
}
