//! Images read back by qemu-img where it is installed; sameness for any number of threads everywhere.

use proptest::prelude::*;

use super::resume::Marks;
use super::*;
use crate::format::disk::sums::Digests;
use crate::format::disk::testing::{any_disk, compare, mixed, noise, qemu_img};
use crate::format::disk::{DiskImage, Extent};
use crate::report::Reporter;
use crate::tree::clusters::Clusters;
use crate::tree::{Content, Digest, PackFile};

const ALL: [Compression; 3] = [Compression::Zstd, Compression::Zlib, Compression::None];

fn image(disk: &DiskImage, compression: Compression, threads: usize) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    let options = Options { compression, threads: Some(threads) };
    write(disk, file.as_file(), &options, &|_| ()).unwrap();
    file
}

/// The image is clean and has the bytes of the disk.
fn verify(disk: &DiskImage, compression: Compression) {
    let file = image(disk, compression, 2);
    let Some(said) = qemu_img(&["check"], file.path()) else { return };
    assert!(said.contains("No errors"), "{said}");
    compare(disk, file.path(), "qcow2");
}

#[test]
fn qemu_reads_every_compression() {
    for compression in ALL {
        verify(&mixed(19 << 30), compression);
    }
}

#[test]
fn threads_do_not_change_the_bytes() {
    let disk = mixed(19 << 30);
    for compression in ALL {
        let one = std::fs::read(image(&disk, compression, 1).path()).unwrap();
        for threads in [2, 3, 8] {
            assert!(one == std::fs::read(image(&disk, compression, threads).path()).unwrap());
        }
    }
}

/// With an empty cache, a full one, and one in which every pack is damaged.
#[test]
fn kept_clusters_do_not_change_the_bytes() {
    for compression in ALL {
        let cache = tempfile::tempdir().unwrap();
        let disk = mixed(19 << 30);
        let wanted = std::fs::read(image(&disk, compression, 2).path()).unwrap();
        for round in ["empty", "full", "full", "damaged", "made again"] {
            let packs: Vec<_> = std::fs::read_dir(cache.path().join(crate::tree::clusters::FOLDER))
                .map(|entries| entries.map(|entry| entry.unwrap().path()).collect())
                .unwrap_or_default();
            let clusters = Clusters::open(cache.path(), 7, &Reporter::quiet()).unwrap();
            if round == "damaged" {
                for pack in packs {
                    let mut bytes = std::fs::read(&pack).unwrap();
                    let data = bytes.len() / 2;
                    bytes[..data].iter_mut().for_each(|byte| *byte ^= 1);
                    std::fs::write(pack, bytes).unwrap();
                }
            }
            let file = tempfile::NamedTempFile::new().unwrap();
            let options = Options { compression, threads: Some(3) };
            let sums = write_kept(&disk, file.as_file(), &options, &clusters, Digests::BOTH, &|_| ()).unwrap();
            let found = std::fs::read(file.path()).unwrap();
            assert!(found == wanted, "{compression:?}, {round}");
            assert_eq!(Digest::from_bytes(sums.sha256.unwrap()), Digest::of(&found));
            assert_eq!(sums.size, found.len() as u64);
        }
    }
}

/// Another disk of mostly the same clusters, and contents from a store whose files have gone: they are not read.
#[test]
fn only_what_changed_is_read() {
    let cache = tempfile::tempdir().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let clusters = Clusters::open(cache.path(), 7, &Reporter::quiet()).unwrap();
    let path = folder.path().join("pack");
    let content = |name: &str, offset: usize| {
        let pack = PackFile::new(path.clone(), std::fs::File::open(&path).unwrap());
        let digest = Digest::of(&std::fs::read(folder.path().join(name)).unwrap()[offset..]);
        Content::packed(digest, 1_000_000, pack, offset as u64)
    };
    std::fs::write(&path, b"some words and ".repeat(100_000)).unwrap();
    std::fs::copy(&path, folder.path().join("copy")).unwrap();
    std::fs::File::options().write(true).open(folder.path().join("copy")).unwrap().set_len(1_000_000).unwrap();
    let disk = |more: &'static [u8]| {
        let extents = vec![Extent::content(1 << 20, content("copy", 0)), Extent::bytes(5 << 20, more)];
        DiskImage::new(100 << 20, extents).unwrap()
    };
    let options = Options { compression: Compression::Zstd, threads: None };
    let first = tempfile::tempfile().unwrap();
    write_kept(&disk(b"first"), &first, &options, &clusters, Digests::BOTH, &|_| ()).unwrap();
    let second = disk(b"second");
    let wanted = std::fs::read(image(&second, Compression::Zstd, 1).path()).unwrap();
    std::fs::write(&path, b"").unwrap();
    let second = disk(b"second");
    assert!(second.read_at(&mut [0; 9], 1 << 20).is_err(), "the content cannot be read");
    let file = tempfile::NamedTempFile::new().unwrap();
    write_kept(&second, file.as_file(), &options, &clusters, Digests::BOTH, &|_| ()).unwrap();
    assert!(std::fs::read(file.path()).unwrap() == wanted);
}

/// 12 MiB of files in a pack file, which may be changed afterwards, and some bytes between them.
struct Pack {
    folder: tempfile::TempDir,
    bytes: Vec<u8>,
}

const FILE: usize = 1 << 20;

impl Pack {
    fn new() -> Pack {
        let text = b"a line of text that repeats ".repeat(FILE / 28 + 1);
        let bytes: Vec<u8> =
            (0..12).flat_map(|file| [noise(FILE / 2, file), text[..FILE / 2].to_vec()].concat()).collect();
        let pack = Pack { folder: tempfile::tempdir().unwrap(), bytes };
        pack.restore();
        pack
    }

    fn path(&self) -> std::path::PathBuf {
        self.folder.path().join("pack")
    }

    fn restore(&self) {
        std::fs::write(self.path(), &self.bytes).unwrap();
    }

    /// A disk with these files that was not read yet.
    fn disk(&self, more: &'static [u8]) -> (DiskImage, std::sync::Arc<PackFile>) {
        let pack = PackFile::new(self.path(), std::fs::File::open(self.path()).unwrap());
        let file = |number: usize| {
            let at = number * FILE;
            let digest = Digest::of(&self.bytes[at..at + FILE]);
            Extent::content((2 * at) as u64 + (1 << 20), Content::packed(digest, FILE as u64, pack.clone(), at as u64))
        };
        let extents = (0..12).map(file).chain([Extent::bytes(5, more), Extent::bytes(99 << 20, more)]).collect();
        (DiskImage::new(100 << 20, extents).unwrap(), pack)
    }
}

fn kept(disk: &DiskImage, compression: Compression, clusters: &Clusters) -> crate::error::Result<Vec<u8>> {
    let file = tempfile::NamedTempFile::new().unwrap();
    let sums =
        write_kept(disk, file.as_file(), &Options { compression, threads: Some(2) }, clusters, Digests::BOTH, &|_| ())?;
    let bytes = std::fs::read(file.path()).unwrap();
    assert_eq!(Digest::from_bytes(sums.sha256.unwrap()), Digest::of(&bytes));
    assert_eq!(sums, crate::format::disk::sums::Sums::of(&bytes[..], Digests::BOTH).unwrap());
    Ok(bytes)
}

/// What differs lies behind what is hashed already, and the sums are right all the same.
#[test]
fn checksums_go_on_where_an_earlier_image_was_the_same() {
    let files = Pack::new();
    for compression in ALL {
        let cache = tempfile::tempdir().unwrap();
        let mut known = Vec::new();
        for more in [&b"one"[..], b"two", b"three, and longer than the others"] {
            let clusters = Clusters::open(cache.path(), 7, &Reporter::quiet()).unwrap();
            let (disk, _) = files.disk(more);
            let options = Options { compression, threads: None };
            let segments = kept::plan(&disk, &options, &clusters, &|_| ()).unwrap();
            known.push(Marks::of(&segments).known(&clusters, Digests::BOTH).length());
            let wanted = std::fs::read(image(&disk, compression, 1).path()).unwrap();
            assert!(kept(&disk, compression, &clusters).unwrap() == wanted, "{compression:?}");
        }
        assert_eq!(known[0], 0);
        assert!(known[1] >= 4 << 20 && known[1] == known[2], "{known:?}");
    }
}

/// Bytes that are not there yet.
struct Unknown;

impl crate::tree::ReadAt for Unknown {
    fn read_at(&self, _: &mut [u8], _: u64) -> crate::error::Result<()> {
        Err(crate::error::Error::build("not there yet"))
    }
}

/// While the last file is not there; also when there is no time for it.
#[test]
fn what_is_made_ahead_is_found_and_changes_nothing() {
    let files = Pack::new();
    let disk = |last: Content| {
        let late = last.digest();
        let extents = files.disk(b"one").0.extents().iter().cloned().chain([Extent::content(60 << 20, last)]).collect();
        let mut disk = DiskImage::new(100 << 20, extents).unwrap();
        disk.made_last([late]);
        disk
    };
    let real = disk(Content::inline(noise(2 << 20, 99)));
    for compression in ALL {
        let wanted = std::fs::read(image(&real, compression, 1).path()).unwrap();
        for stop in [false, true] {
            let cache = tempfile::tempdir().unwrap();
            let clusters = Clusters::open(cache.path(), 7, &Reporter::quiet()).unwrap();
            let unknown = disk(Content::elsewhere(Digest::of(b"?"), 2 << 20, std::sync::Arc::new(Unknown)));
            let options = Options { compression, threads: Some(2) };
            prepare(&unknown, &options, &clusters, Digests::BOTH, &stop.into()).unwrap();
            let segments = kept::plan(&real, &options, &clusters, &|_| ()).unwrap();
            let known = Marks::of(&segments).known(&clusters, Digests::BOTH).length();
            assert_eq!(known >= 4 << 20, !stop, "{compression:?}: {known}");
            assert!(kept(&real, compression, &clusters).unwrap() == wanted, "{compression:?}");
        }
    }
}

/// Content of the store that was compared with its digest for an earlier image, and then changed.
#[test]
fn a_byte_that_flips_between_two_images_is_found() {
    let files = Pack::new();
    let cache = tempfile::tempdir().unwrap();
    let clusters = || Clusters::open(cache.path(), 7, &Reporter::quiet()).unwrap();
    let wanted = kept(&files.disk(b"one").0, Compression::None, &clusters()).unwrap();
    for at in [0, FILE + 77, 12 * FILE - 1] {
        let mut bad = files.bytes.clone();
        bad[at] ^= 0x10;
        std::fs::write(files.path(), bad).unwrap();
        let (disk, pack) = files.disk(b"one");
        let error = kept(&disk, Compression::None, &clusters()).unwrap_err();
        assert_eq!(error.kind(), crate::error::Kind::Authenticity, "byte {at}: {error}");
        assert!(pack.is_damaged(), "so that the store sets it aside");
        files.restore();
        assert!(kept(&files.disk(b"one").0, Compression::None, &clusters()).unwrap() == wanted);
    }
}

#[test]
fn odd_and_large_sizes() {
    for size in [1, 511, 512, 513, 65_535, 65_536, 65_537, (512 << 20) - 1, (512 << 20) + 1] {
        let disk = DiskImage::new(size, vec![Extent::bytes(size - 1, *b"!")]).unwrap();
        for compression in ALL {
            verify(&disk, compression);
        }
    }
    let empty = DiskImage::empty(412 << 30);
    verify(&empty, Compression::Zstd);
    assert!(image(&empty, Compression::Zstd, 1).as_file().metadata().unwrap().len() <= 4 * 65_536);
    let size = 412 << 30;
    verify(&DiskImage::new(size, vec![Extent::bytes(size - 512, vec![1; 512])]).unwrap(), Compression::Zstd);
    let file = tempfile::tempfile().unwrap();
    assert!(write(&DiskImage::empty(0), &file, &Options::default(), &|_| ()).is_err());
    assert!(write(&DiskImage::empty(u64::MAX), &file, &Options::default(), &|_| ()).is_err());
}

#[test]
fn info_names_the_compression_and_the_size() {
    let disk = DiskImage::new(19 << 30, vec![Extent::bytes(0, *b"x")]).unwrap();
    for (compression, name) in [(Compression::Zstd, "zstd"), (Compression::Zlib, "zlib")] {
        let file = image(&disk, compression, 1);
        let Some(said) = qemu_img(&["info", "--output=json"], file.path()) else { return };
        let info: serde_json::Value = serde_json::from_str(&said).unwrap();
        assert_eq!(info["virtual-size"], 19u64 << 30);
        assert_eq!(info["format-specific"]["data"]["compression-type"], name);
        assert_eq!(info["format-specific"]["data"]["corrupt"], false);
        assert!(info.get("backing-filename").is_none());
    }
}

#[test]
fn progress_covers_the_data() {
    let disk = mixed(19 << 30);
    let done = std::cell::Cell::new(0);
    let file = tempfile::tempfile().unwrap();
    write(&disk, &file, &Options::default(), &|bytes| done.set(done.get() + bytes)).unwrap();
    assert_eq!(done.get(), disk.touched_size(65_536));
    let cache = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let clusters = Clusters::open(cache.path(), 7, &Reporter::quiet()).unwrap();
        let (done, file) = (std::cell::Cell::new(0), tempfile::tempfile().unwrap());
        write_kept(&disk, &file, &Options::default(), &clusters, Digests::BOTH, &|bytes| done.set(done.get() + bytes))
            .unwrap();
        assert_eq!(done.get(), disk.touched_size(65_536));
    }
}

#[test]
fn a_failing_source_is_an_error_and_ends_all_threads() {
    let short = Extent { length: 8 << 20, ..Extent::bytes(0, noise(1 << 20, 3)) };
    let disk = DiskImage::new(8 << 20, vec![short]).unwrap();
    let file = tempfile::tempfile().unwrap();
    let options = Options { threads: Some(4), ..Options::default() };
    let error = write(&disk, &file, &options, &|_| ()).unwrap_err().to_string();
    assert!(error.contains("longer than its bytes"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_disk_comes_back_from_qemu(disk in any_disk(), compression in prop::sample::select(ALL.to_vec())) {
        verify(&disk, compression);
    }
}
