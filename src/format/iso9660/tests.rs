//! Images read back by xorriso, isoinfo and sgdisk, where installed.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use uuid::Uuid;

use super::seed::{Area, CAPACITY, Files};
use super::*;
use crate::error::Kind as ErrorKind;
use crate::format::disk::sparse;
use crate::format::disk::sums::{Digests, Sums};
use crate::format::fat;
use crate::tree::{Content, Digest, Entry, Kind, Meta, Mtime, ReadAt, Tree, TreePath};

const TIME: i64 = 1_700_000_000;

struct Image(File);

impl ReadAt for Image {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> crate::error::Result<()> {
        self.0.read_exact_at(buffer, offset).map_err(|error| crate::error::Error::build(error.to_string()))
    }
}

fn tree() -> Tree {
    let mut tree = Tree::new();
    let mut put = |path: &str, kind: Kind| {
        let mtime = Mtime { seconds: 1_600_000_000, nanoseconds: 0 };
        let meta = Meta { mtime, uid: 7, gid: 5, ..Meta::root(0o640) };
        tree.put(&TreePath::new(path).unwrap(), Entry { meta, kind, origin: "t".into() }).unwrap();
    };
    put("AIRSHIP", Kind::File(Content::inline(*b"x\n")));
    put("boot/vmlinuz", Kind::File(Content::inline(vec![7; 5000])));
    put("boot/grub/empty", Kind::File(Content::inline(Vec::new())));
    put("boot/grub/link", Kind::Symlink(b"../vmlinuz".to_vec()));
    for number in 0..200 {
        put(&format!("boot/grub/i386-pc/module_{number}.mod"), Kind::File(Content::inline(vec![number; 100])));
    }
    tree
}

fn options() -> Options {
    let mut core = vec![0x33; 9000];
    core[2048 + 510..2048 + 512].copy_from_slice(&0x820u16.to_le_bytes());
    let mut hybrid = vec![0x44; 512];
    hybrid[510..].copy_from_slice(&[0x55, 0xAA]);
    let mut files = Tree::new();
    files.write_file(&TreePath::literal("EFI/BOOT/BOOTX64.EFI"), "efi", Meta::root(0o644), &"t".into()).unwrap();
    let esp = fat::Options {
        size: 10 << 20,
        fat_type: fat::FatType::Fat16,
        volume_id: 1,
        label: String::new(),
        hidden_sectors: 0,
        latest: Mtime { seconds: TIME, nanoseconds: 0 },
    };
    Options {
        volume_id: "config-2".into(),
        time: TIME,
        disk_guid: Uuid::from_u128(1),
        esp_guid: Uuid::from_u128(2),
        bios: Some(Bios { hybrid, core }),
        esp: Some(fat::make(&files, &esp).unwrap()),
        payload: TreePath::literal("live/filesystem.squashfs"),
    }
}

fn seed(user_data: &str) -> Files {
    [("meta_data.json", "{}\n"), ("user_data", user_data), ("network_data.json", "{\"links\": []}\n")]
        .map(|(name, text)| (name.to_owned(), text.as_bytes().to_vec()))
        .into()
}

/// As the builder does it: payload, frame, digests up to the seed, seed.
fn write(tree: &Tree, options: Options, payload: &[u8], files: &Files) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    let plan = Plan::new(tree, options).unwrap();
    file.as_file().write_all_at(payload, plan.payload_offset()).unwrap();
    let frame = plan.frame(payload.len() as u64).unwrap();
    file.as_file().set_len(frame.disk.size()).unwrap();
    sparse::copy(&frame.disk, file.as_file(), &|_| ()).unwrap();
    let mut bytes = vec![0; frame.seed_offset as usize];
    file.as_file().read_exact_at(&mut bytes, 0).unwrap();
    let state = crate::format::disk::sums::State::of(&bytes).unwrap();
    let area = plan.seed_area(&frame, Uuid::from_u128(3), Digest::of(b"base"), state).unwrap();
    file.as_file().write_all_at(&area.encode(files).unwrap(), frame.seed_offset).unwrap();
    file
}

/// What a program says, `None` (and a message) where it is not installed.
fn said(program: &str, arguments: &[&str], file: &Path) -> Option<String> {
    let arguments =
        arguments.iter().map(|argument| if *argument == "FILE" { file.as_os_str() } else { argument.as_ref() });
    let Ok(output) = Command::new(program).args(arguments).output() else {
        println!("skipped: {program} is not installed");
        return None;
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program}: {text}");
    Some(text)
}

#[test]
fn xorriso_reads_everything_back() {
    let payload = vec![9; 3_000_001];
    let file = write(&tree(), options(), &payload, &seed("#cloud-config\n"));
    let Some(text) = said("xorriso", &["-indev", "FILE", "-pvd_info"], file.path()) else { return };
    assert!(text.contains("Volume Id    : config-2") && !text.contains("WARNING"), "{text}");
    let to = tempfile::tempdir().unwrap();
    let out = to.path().join("out");
    let status = Command::new("xorriso")
        .args(["-osirrox", "on", "-indev"])
        .arg(file.path())
        .args(["-extract", "/"])
        .arg(&out)
        .output()
        .unwrap();
    assert!(status.status.success(), "{}", String::from_utf8_lossy(&status.stderr));
    let read = |path: &str| std::fs::read(out.join(path)).unwrap();
    assert_eq!(read("live/filesystem.squashfs"), payload);
    assert_eq!(read("boot/vmlinuz"), vec![7; 5000]);
    assert_eq!(read("boot/grub/empty"), b"");
    assert_eq!(read("boot/grub/i386-pc/module_199.mod"), vec![199; 100]);
    assert_eq!(read("openstack/latest/user_data"), b"#cloud-config\n");
    assert_eq!(std::fs::read_link(out.join("boot/grub/link")).unwrap(), Path::new("../vmlinuz"));
    let Some(text) =
        said("xorriso", &["-indev", "FILE", "-report_el_torito", "plain", "-report_system_area", "plain"], file.path())
    else {
        return;
    };
    for wanted in
        ["BIOS", "UEFI", "/boot/grub/bios.img", "/boot/grub/efiboot.img", "boot-info-table", "grub2-boot-info"]
    {
        assert!(text.contains(wanted), "no {wanted}: {text}");
    }
    assert!(text.contains("protective-msdos-label") || text.contains("GPT"), "{text}");
}

#[test]
fn isoinfo_sees_owners_and_modes() {
    let file = write(&tree(), options(), b"payload", &seed("a"));
    let Some(text) = said("isoinfo", &["-l", "-R", "-i", "FILE"], file.path()) else { return };
    let line = |name: &str| {
        let found = text.lines().find(|line| line.trim_end().ends_with(name));
        found.unwrap_or_else(|| panic!("no {name}: {text}")).to_owned()
    };
    assert!(
        line(" vmlinuz").starts_with("-rw-r-----   1    7    5            5000 Sep 13 2020"),
        "{}",
        line(" vmlinuz")
    );
    assert!(
        line(" user_data").starts_with("-r--------   1    0    0               1 Nov 14 2023"),
        "{}",
        line("user_data")
    );
    assert!(line("link -> ../vmlinuz").starts_with('l'));
    let Some(text) = said("isoinfo", &["-d", "-i", "FILE"], file.path()) else { return };
    assert!(text.contains("Volume id: config-2") && text.contains("Rock Ridge"), "{text}");
}

#[test]
fn sgdisk_finds_no_problem() {
    let file = write(&tree(), options(), b"payload", &seed("a"));
    let Some(text) = said("sgdisk", &["-v", "FILE"], file.path()) else { return };
    assert!(text.contains("No problems found"), "{text}");
    let mut sector = [0; 512];
    file.as_file().read_exact_at(&mut sector, 0).unwrap();
    assert_eq!((sector[446], sector[450], sector[462], sector[466]), (0, 0xEE, 0x80, 0xEF));
}

#[test]
fn another_seed_gives_the_bytes_of_building_with_it() {
    let (one, two) = (seed("one"), seed(&"two".repeat(70_000)));
    let file = write(&tree(), options(), b"payload", &one);
    let wanted = std::fs::read(write(&tree(), options(), b"payload", &two)).unwrap();
    let image = Image(file.reopen().unwrap());
    let size = wanted.len() as u64;
    let area = Area::find(&image, size).unwrap();
    assert_eq!(area.files(&image, size).unwrap(), one);
    assert_eq!((area.label.identity, area.label.base), (Uuid::from_u128(3), Digest::of(b"base")));
    file.as_file().write_all_at(&area.encode(&two).unwrap(), area.offset).unwrap();
    let bytes = std::fs::read(file.path()).unwrap();
    assert!(bytes == wanted);
    // The state of the label saves reading what is before it.
    let rest = Sums::resume(area.label.state, &bytes[area.offset as usize..]).unwrap();
    assert_eq!(rest, Sums::of(&bytes[..], Digests::BOTH).unwrap());
}

#[test]
fn the_same_bytes_whatever_the_payload_was_before() {
    let digest = |file: tempfile::NamedTempFile| Digest::of(&std::fs::read(file.path()).unwrap());
    let once = digest(write(&tree(), options(), b"payload", &seed("a")));
    assert_eq!(once, digest(write(&tree(), options(), b"payload", &seed("a"))));
    assert_ne!(once, digest(write(&tree(), options(), b"pay-load", &seed("a"))));
}

#[test]
fn a_payload_of_more_than_four_gib_has_several_extents() {
    let plan = Plan::new(&tree(), options()).unwrap();
    let size = (5 << 30) + 12_345;
    let frame = plan.frame(size).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(frame.disk.size()).unwrap();
    sparse::copy(&frame.disk, file.as_file(), &|_| ()).unwrap();
    file.as_file().write_all_at(b"end", plan.payload_offset() + size - 3).unwrap();
    let area = plan
        .seed_area(&frame, Uuid::nil(), Digest::of(b""), crate::format::disk::sums::State::of(b"").unwrap())
        .unwrap();
    file.as_file().write_all_at(&area.encode(&seed("a")).unwrap(), frame.seed_offset).unwrap();
    let error = plan.frame(70 << 30).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Space);
    let arguments = ["-indev", "FILE", "-find", "/live/filesystem.squashfs", "-exec", "report_lba", "--"];
    let Some(text) = said("xorriso", &arguments, file.path()) else { return };
    let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("File data lba:")).collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert!(lines[1].contains(&format!(" {size} ")) && !text.contains("WARNING"), "{text}");
}

#[test]
fn what_cannot_be_is_refused() {
    let refused = |path: &str, kind: Kind| {
        let mut tree = tree();
        let entry = Entry { meta: Meta::root(0o644), kind, origin: "t".into() };
        tree.put(&TreePath::new(path).unwrap(), entry).unwrap();
        Plan::new(&tree, options()).map(|_| ()).unwrap_err().to_string()
    };
    let file = || Kind::File(Content::inline(*b"x"));
    assert!(refused("a/b/c/d/e/f/g/h/i", file()).contains("more than 8 folders deep"));
    assert!(refused(&"n".repeat(200), file()).contains("too long"));
    assert!(refused("fifo", Kind::Fifo).contains("neither a file nor"));
    assert!(refused("openstack/latest/x", file()).contains("for the seed alone"));
    let large = seed(&"x".repeat(CAPACITY as usize));
    let plan = Plan::new(&tree(), options()).unwrap();
    let state = crate::format::disk::sums::State::of(b"").unwrap();
    let area = plan.seed_area(&plan.frame(1).unwrap(), Uuid::nil(), Digest::of(b""), state).unwrap();
    assert_eq!(area.encode(&large).unwrap_err().kind(), ErrorKind::Space);
    assert!(area.encode(&[("../x".to_owned(), Vec::new())].into()).is_err());
}

#[test]
fn damaged_images_are_errors_and_never_panics() {
    let file = write(&tree(), options(), b"payload", &seed("a"));
    let bytes = std::fs::read(file.path()).unwrap();
    let size = bytes.len() as u64;
    let image = Image(file.reopen().unwrap());
    let find = |at: usize, byte: u8| {
        image.0.write_all_at(&[byte], at as u64).unwrap();
        let found = Area::find(&image, size).and_then(|area| area.files(&image, size));
        image.0.write_all_at(&[bytes[at]], at as u64).unwrap();
        found
    };
    assert!(find(0, 0).is_ok());
    assert!(Area::find(&image, 40_000).is_err());
    assert!(Area::find(&image, size - 9_000_000).is_err());
    let at = Area::find(&image, size).unwrap().offset as usize;
    assert_eq!(find(at + 20, 0xEE).unwrap_err().kind(), ErrorKind::Authenticity);
    for place in (at..at + 4096).step_by(3).chain(32768..32768 + 200) {
        let _ = find(place, 0xFF);
    }
    assert!(Area::find(&Image(tempfile::tempfile().unwrap()), 0).is_err());
}
