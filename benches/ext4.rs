//! The ext4 writer beside `mke2fs -d`: wall time in alternation, peak memory, and how many blocks a small edit changes.
//!
//! ```text
//! cargo bench --bench ext4 -- --cache ~/.cache/imagebuilder [--work /dev/shm] [--runs 5] [--size-mib 18432]
//! ```
//!
//! Takes the largest Tree of the cache (the root file system of an image built before). Needs mke2fs, and root for the
//! owners of the folder that mke2fs reads. The files that the Tree refers to are copied to the work folder first, so
//! both read and write the same kind of memory. Each run is a process of its own, start and loading of the Tree counted.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::{largest, load, median, timed};
use imagebuilder::error::{Context, Error, Result};
use imagebuilder::format::disk::DiskImage;
use imagebuilder::format::{ext4, raw};
use imagebuilder::tree::store;
use imagebuilder::tree::{Content, Digest, Entry, Kind, Meta, Mtime, Tree, TreePath, host::Folder};

struct Arguments {
    cache: PathBuf,
    work: PathBuf,
    runs: usize,
    size: u64,
    /// Given to the program itself: what to do, and to which Tree.
    job: Option<(String, Digest)>,
    times: u64,
}

fn arguments() -> Result<Arguments> {
    let usage = || Error::build("usage: cargo bench --bench ext4 -- --cache FOLDER [--work FOLDER] [--runs N]");
    let mut out =
        Arguments { cache: PathBuf::new(), work: "/dev/shm".into(), runs: 5, size: 18 << 30, job: None, times: 1 };
    let mut words = std::env::args().skip(1).filter(|word| word != "--bench");
    while let Some(word) = words.next() {
        let value = words.next().ok_or_else(usage)?;
        let number = || value.parse::<u64>().map_err(|_| usage());
        match word.as_str() {
            "--cache" => out.cache = value.into(),
            "--work" => out.work = value.into(),
            "--runs" => out.runs = number()? as usize,
            "--size-mib" => out.size = number()? << 20,
            "--times" => out.times = number()?,
            "--write" => out.job = Some(("write".into(), Digest::from_hex(&value).ok_or_else(usage)?)),
            _ => return Err(usage()),
        }
    }
    if out.cache.as_os_str().is_empty() { Err(usage()) } else { Ok(out) }
}

fn options(size: u64) -> ext4::Options {
    ext4::Options {
        size,
        uuid: uuid::Uuid::from_u128(1),
        hash_seed: uuid::Uuid::from_u128(2),
        label: String::new(),
        time: Mtime { seconds: 1_700_000_000, nanoseconds: 0 },
        bytes_per_inode: 16384,
        inodes: None,
        reserved_percent: 5,
        features: ext4::Features::default(),
    }
}

fn main() -> Result<()> {
    // `cargo test --benches` must not need a cache.
    if std::env::args().len() < 2 || std::env::args().any(|word| word == "--test") {
        println!("skipped: cargo bench --bench ext4 -- --cache FOLDER");
        return Ok(());
    }
    let arguments = arguments()?;
    match &arguments.job {
        Some((_, key)) => write(&arguments, *key),
        None => compare(&arguments),
    }
}

/// One run of ours; says what its peak memory was.
fn write(arguments: &Arguments, key: Digest) -> Result<()> {
    let mut tree = load(&arguments.cache, key)?;
    if arguments.times > 1 {
        stretch(&mut tree, arguments.times);
    }
    let file = std::fs::File::create(arguments.work.join("ours.img")).context("making the image")?;
    let disk = ext4::make(&tree, &options(arguments.size))?;
    raw::write(&disk, &file, &|_| ())?;
    let status = std::fs::read_to_string("/proc/self/status").context("reading the peak memory")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("?");
    println!("{}", peak.trim().trim_end_matches(" kB"));
    Ok(())
}

/// More content behind as many names: every file so many times as long, with bytes from the start of its pack.
fn stretch(tree: &mut Tree, times: u64) {
    for (_, entry) in tree.iter_mut() {
        let Kind::File(content) = &mut entry.kind else { continue };
        let Some((pack, _)) = content.segment() else { continue };
        let size = content.size() * times;
        if pack.file.metadata().is_ok_and(|about| about.len() >= size) {
            *content = Content::packed(content.digest(), size, pack.clone(), 0);
        }
    }
}

fn compare(arguments: &Arguments) -> Result<()> {
    let (key, tree) = largest(&arguments.cache)?;
    let bytes: u64 = contents(&tree).map(Content::size).sum();
    println!("tree {key}: {} entries, {} MiB", tree.len(), bytes >> 20);
    moved(&tree, arguments.size)?;
    let work = tempfile::Builder::new().prefix("bench-ext4-").tempdir_in(&arguments.work).context("making a folder")?;
    let cache = work.path().join("cache");
    copy_store(&arguments.cache, &cache, key, &tree)?;
    let mut folder = Folder::create(&work.path().join("folder"))?;
    folder.show(&tree)?;
    drop(tree);
    let image = work.path().join("theirs.img");
    let size = format!("{}M", arguments.size >> 20);
    let mut walls = [Vec::new(), Vec::new()];
    // The first round warms up.
    for round in 0..=arguments.runs {
        let ours = timed(&mut ours(arguments, &cache, work.path(), key, 1)?)?;
        let _ = std::fs::remove_file(&image);
        let mut mke2fs = Command::new("mke2fs");
        mke2fs.args(["-q", "-t", "ext4", "-b", "4096", "-O", "64bit,metadata_csum", "-d"]).arg(folder.path());
        let theirs = timed(mke2fs.arg(&image).arg(&size).env("E2FSPROGS_FAKE_TIME", "1700000000"))?;
        println!("run {round}: ours {:.3} s ({} KiB peak), mke2fs -d {:.3} s", ours.0, ours.1.trim(), theirs.0);
        if round > 0 {
            walls[0].push(ours.0);
            walls[1].push(theirs.0);
        }
    }
    let _ = std::fs::remove_file(&image);
    let [ours_wall, theirs_wall] = walls.map(median);
    println!("median: ours {ours_wall:.3} s, mke2fs -d {theirs_wall:.3} s, ratio {:.2}", ours_wall / theirs_wall);
    drop(folder);
    std::fs::remove_dir_all(work.path().join("folder")).context("removing the folder")?;
    for times in [1, 2, 4] {
        let (wall, peak) = timed(&mut ours(arguments, &cache, work.path(), key, times)?)?;
        println!("content x{times}: {wall:.3} s, {} KiB peak", peak.trim());
    }
    Ok(())
}

fn contents(tree: &Tree) -> impl Iterator<Item = &Content> {
    tree.iter().filter_map(|(_, entry)| if let Kind::File(content) = &entry.kind { Some(content) } else { None })
}

fn ours(arguments: &Arguments, cache: &Path, work: &Path, key: Digest, times: u64) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe().context("finding this program")?);
    command.arg("--cache").arg(cache).arg("--work").arg(work).args(["--write", &key.to_hex()]);
    command.args(["--times", &times.to_string(), "--size-mib", &(arguments.size >> 20).to_string()]);
    Ok(command)
}

/// The Tree's file and its packs.
fn copy_store(from: &Path, to: &Path, key: Digest, tree: &Tree) -> Result<()> {
    let (from, to) = (from.join(store::folder_name()), to.join(store::folder_name()));
    std::fs::create_dir_all(&to).context("making a folder")?;
    let packs = contents(tree).filter_map(|content| content.segment()).map(|(pack, _)| pack.path.clone());
    let mut files: Vec<PathBuf> = packs.collect();
    files.push(from.join(format!("{key}.tree")));
    files.sort();
    files.dedup();
    for file in files {
        std::fs::copy(&file, to.join(file.file_name().unwrap_or_default())).context("copying the store")?;
    }
    Ok(())
}

/// Small edits of the Tree, and how many blocks of 4 KiB they change.
fn moved(tree: &Tree, size: u64) -> Result<()> {
    let options = options(size);
    let before = ext4::make(tree, &options)?;
    println!("image: {} MiB of data in {} extents", before.data_size() >> 20, before.extents().len());
    let path = TreePath::literal;
    let put = |at: TreePath, bytes: Vec<u8>| {
        move |tree: &mut Tree| {
            let meta = Meta::root(0o644);
            tree.put(&at, Entry { meta, kind: Kind::File(Content::inline(bytes.clone())), origin: "".into() })
        }
    };
    let old = tree.read_file(&path("etc/adduser.conf"))?.unwrap_or_default();
    let same = old.iter().map(u8::to_ascii_uppercase).collect();
    let edits = [
        ("one file, as long as before", put(path("etc/adduser.conf"), same)),
        ("one file, 10 KiB longer", put(path("etc/adduser.conf"), [old, vec![b'#'; 10 << 10]].concat())),
        ("a new file in /etc/sysctl.d", put(path("etc/sysctl.d/90-bench.conf"), b"vm.swappiness = 20\n".to_vec())),
        ("a new folder with a file", put(path("etc/bench/bench.conf"), b"x\n".to_vec())),
        ("a new file of 1 MiB in /usr/bin", put(path("usr/bin/bench"), vec![7; 1 << 20])),
        ("a new file of 30 MiB in /usr/lib", put(path("usr/lib/bench"), vec![7; 30 << 20])),
    ];
    for (name, edit) in edits {
        let mut changed = tree.clone();
        edit(&mut changed)?;
        let after = ext4::make(&changed, &options)?;
        println!("{name}: {} blocks of 4 KiB differ", differing(&before, &after)?);
    }
    Ok(())
}

fn differing(one: &DiskImage, other: &DiskImage) -> Result<u64> {
    const BLOCK: u64 = 4096;
    let mut blocks: Vec<u64> = one.touched_blocks(BLOCK).chain(other.touched_blocks(BLOCK)).collect();
    blocks.sort_unstable();
    blocks.dedup();
    let (mut left, mut right) = ([0; BLOCK as usize], [0; BLOCK as usize]);
    let mut count = 0;
    for block in blocks {
        one.read_at(&mut left, block * BLOCK)?;
        other.read_at(&mut right, block * BLOCK)?;
        count += u64::from(left != right);
    }
    Ok(count)
}
