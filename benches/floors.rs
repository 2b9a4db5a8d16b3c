//! Each step of a build by itself, beside the least that any program would have to do for it.
//!
//! ```text
//! imagebuilder build benches/peers/documents/qcow2 --cache-dir CACHE --output-dir OUT
//! cargo bench --bench floors -- --cache CACHE [--work /dev/shm] [--runs 5] [--only NAME]
//! ```
//!
//! The cache is that of a build of the benchmark's own documents: its index and its packages are what is worked on.
//! | step | floor |
//! |---|---|
//! | index: decompress and read `Packages` | decompress it and look for the ends of lines |
//! | resolve: choose the packages | look once at every relation of the packages chosen |
//! | unpack: all packages, into a folder | decompress them on all cores, largest first |
//! | qcow2 zstd: ext4 as qcow2 | zstd alone of the same clusters, on all cores |
//! | qcow2 plain: the same without compression | read the same clusters |
//! | render: the benchmark's documents | none; beside `kubectl kustomize`, each a process |
//!
//! Ours and the floor run in turns, the first round does not count; medians are printed, with the processor time of all
//! threads. `ext4` is a bench of its own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use imagebuilder::error::{Context, Error, Result};
use imagebuilder::format::disk::DiskImage;
use imagebuilder::format::{ext4, qcow2};
use imagebuilder::package::binary::{Binary, Source};
use imagebuilder::package::database::Database;
use imagebuilder::package::fetch::deb_path;
use imagebuilder::package::index::{Index, Universe};
use imagebuilder::package::lock::Request;
use imagebuilder::package::resolve;
use imagebuilder::package::root::Root;
use imagebuilder::package::stage::{Stage, Staged};
use imagebuilder::package::unpack::{Conffiles, Unpacker};
use imagebuilder::plan;
use imagebuilder::tree::host::Folder;
use imagebuilder::tree::store::Store;
use imagebuilder::tree::{Digest, Mtime};

const DOCUMENTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/peers/documents/qcow2");

struct Arguments {
    cache: PathBuf,
    work: PathBuf,
    runs: usize,
    only: Option<String>,
}

fn arguments() -> Result<Arguments> {
    let usage = || Error::build("usage: cargo bench --bench floors -- --cache FOLDER [--work FOLDER] [--runs N]");
    let mut out = Arguments { cache: PathBuf::new(), work: "/dev/shm".into(), runs: 5, only: None };
    let mut words = std::env::args().skip(1).filter(|word| word != "--bench");
    while let Some(word) = words.next() {
        let value = words.next().ok_or_else(usage)?;
        match word.as_str() {
            "--cache" => out.cache = value.into(),
            "--work" => out.work = value.into(),
            "--runs" => out.runs = value.parse().ok().filter(|runs| *runs > 0).ok_or_else(usage)?,
            "--only" => out.only = Some(value),
            _ => return Err(usage()),
        }
    }
    if out.cache.as_os_str().is_empty() { Err(usage()) } else { Ok(out) }
}

fn main() -> Result<()> {
    // `cargo test --benches` must not need a cache.
    if std::env::args().len() < 2 || std::env::args().any(|word| word == "--test") {
        println!("skipped: cargo bench --bench floors -- --cache FOLDER");
        return Ok(());
    }
    let bench = Bench { arguments: arguments()? };
    let request = plan::load_entry_point(Path::new(DOCUMENTS))?.package_request();
    let index = largest_index(&bench.arguments.cache)?;
    bench.index(&index, &request)?;
    let text = decompressed(&index)?;
    let universe = read(&request, &text)?;
    bench.resolve(&universe, &request)?;
    let packages = packages(&bench.arguments.cache, &universe, &request)?;
    println!("{} packages", packages.len());
    bench.unpack(&packages)?;
    bench.qcow2(&packages)?;
    bench.render()
}

struct Bench {
    arguments: Arguments,
}

/// Wall and processor time of one run, in seconds.
type Took = (f64, f64);

fn timed(work: impl FnOnce() -> Result<()>) -> Result<Took> {
    let (began, before) = (Instant::now(), processor_time());
    work()?;
    Ok((began.elapsed().as_secs_f64(), processor_time() - before))
}

/// Of this process with all its threads, and of the children it waited for.
fn processor_time() -> f64 {
    let of = |whose| {
        // SAFETY: zeros are a valid `rusage`, and the call fills it in.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        // SAFETY: the pointer is to a `rusage` that lives here.
        unsafe { libc::getrusage(whose, &raw mut usage) };
        let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
        seconds(usage.ru_utime) + seconds(usage.ru_stime)
    };
    of(libc::RUSAGE_SELF) + of(libc::RUSAGE_CHILDREN)
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

impl Bench {
    fn wanted(&self, name: &str) -> bool {
        self.arguments.only.as_ref().is_none_or(|only| only == name)
    }

    fn scratch(&self) -> Result<tempfile::TempDir> {
        tempfile::Builder::new().prefix("bench-floors-").tempdir_in(&self.arguments.work).context("making a folder")
    }

    /// Both in turns; prints one line.
    fn compare(
        &self,
        name: &str,
        mut ours: impl FnMut() -> Result<Took>,
        floor: &str,
        mut theirs: impl FnMut() -> Result<Took>,
    ) -> Result<()> {
        let (mut left, mut right) = (Vec::new(), Vec::new());
        for round in 0..=self.arguments.runs {
            let (one, other) = (ours()?, theirs()?);
            if round > 0 {
                left.push(one);
                right.push(other);
            }
        }
        let wall = |of: &[Took]| median(of.iter().map(|took| took.0));
        let cpu = |of: &[Took]| median(of.iter().map(|took| took.1));
        let (ours, theirs) = (wall(&left), wall(&right));
        println!(
            "{name}: {:.1} ms (CPU {:.1} ms); {floor}: {:.1} ms (CPU {:.1} ms); ratio {:.2}, CPU {:.2}",
            ours * 1e3,
            cpu(&left) * 1e3,
            theirs * 1e3,
            cpu(&right) * 1e3,
            ours / theirs,
            cpu(&left) / cpu(&right)
        );
        Ok(())
    }

    fn index(&self, index: &[u8], request: &Request) -> Result<()> {
        if !self.wanted("index") {
            return Ok(());
        }
        let text = decompressed(index)?;
        println!("index: {} MiB, {} MiB decompressed", index.len() >> 20, text.len() >> 20);
        let lines = |text: &str| {
            std::hint::black_box(memchr::memchr_iter(b'\n', text.as_bytes()).count());
            Ok(())
        };
        let whole = || {
            timed(|| {
                let text = decompressed(index)?;
                read(request, &text).map(|universe| drop(std::hint::black_box(universe)))
            })
        };
        let least = || timed(|| lines(&decompressed(index)?));
        self.compare("index", whole, "decompress and find lines", least)?;
        let only = || timed(|| read(request, &text).map(|universe| drop(std::hint::black_box(universe))));
        self.compare("index, text only", only, "find lines", || timed(|| lines(&text)))
    }

    fn resolve(&self, universe: &Universe<'_>, request: &Request) -> Result<()> {
        if !self.wanted("resolve") {
            return Ok(());
        }
        let chosen = resolve::resolve(universe, &request.layers, &request.unapproved)?;
        let whole = || timed(|| resolve::resolve(universe, &request.layers, &request.unapproved).map(|_| ()));
        let once = || {
            let packages = chosen.iter().flat_map(|layer| &layer.packages);
            let groups = packages.flat_map(|package| universe.groups(package.version));
            let targets = groups.flat_map(|group| universe.alternatives(group));
            let versions = targets.map(|alternative| universe.name(alternative.target).versions.len());
            std::hint::black_box(versions.sum::<usize>());
            Ok(())
        };
        self.compare("resolve", whole, "every relation once", || timed(once))
    }

    fn unpack(&self, packages: &[Binary]) -> Result<()> {
        if !self.wanted("unpack") {
            return Ok(());
        }
        let work = self.scratch()?;
        let whole = || {
            let folder = Folder::create(&work.path().join("root"))?;
            let took = timed(|| unpack(&folder, packages))?;
            std::fs::remove_dir_all(folder.path()).context("removing the folder")?;
            Ok(took)
        };
        self.compare("unpack", whole, "decompress on all cores", || timed(|| decompress_all(packages)))
    }

    fn qcow2(&self, packages: &[Binary]) -> Result<()> {
        if !self.wanted("qcow2") {
            return Ok(());
        }
        let work = self.scratch()?;
        let mut folder = Folder::create(&work.path().join("root"))?;
        unpack(&folder, packages)?;
        let pack = Store::open(&work.path().join("cache"))?.writer(Digest::of(b"floors"))?;
        let scanned = folder.scan(&pack, &|_| "".into())?;
        let tree = pack.save(&scanned)?;
        std::fs::remove_dir_all(folder.path()).context("removing the folder")?;
        let disk = ext4::make(&tree, &options())?;
        let clusters: Vec<u64> = disk.touched_blocks(CLUSTER as u64).collect();
        let file = work.path().join("image.qcow2");
        for (name, compression, floor) in [
            ("qcow2 zstd", qcow2::Compression::Zstd, "zstd alone"),
            ("qcow2 plain", qcow2::Compression::None, "reading alone"),
        ] {
            let whole = || {
                let file = std::fs::File::create(&file).context("making the image")?;
                let options = qcow2::Options { compression, threads: None };
                timed(|| qcow2::write(&disk, &file, &options, &|_| ()))
            };
            let alone = || timed(|| clusters_alone(&disk, &clusters, compression == qcow2::Compression::Zstd));
            self.compare(name, whole, floor, alone)?;
        }
        Ok(())
    }

    fn render(&self) -> Result<()> {
        if !self.wanted("render") {
            return Ok(());
        }
        let run = |program: &str, words: &[&str]| {
            let mut command = Command::new(program);
            command.args(words).stdout(Stdio::null()).stderr(Stdio::null());
            timed(|| {
                let status = command.status().with_context(|| format!("running {program}"))?;
                if status.success() { Ok(()) } else { Err(Error::build(format!("{program} failed"))) }
            })
        };
        let documents = concat!(env!("CARGO_MANIFEST_DIR"), "/manifests/site/example/target/data-plane/image");
        let names = ["kubectl", "/usr/lib/google-cloud-sdk/bin/kubectl", "/usr/lib/google-cloud-sdk/bin/kubectl.1.33"];
        let kubectl = names.iter().find(|name| run(name, &["kustomize", "--help"]).is_ok());
        let ours = || run(env!("CARGO_BIN_EXE_imagebuilder"), &["render", documents]);
        match kubectl {
            Some(kubectl) => {
                let theirs = || run(kubectl, &["kustomize", "--load-restrictor", "LoadRestrictionsNone", documents]);
                self.compare("render", ours, "kubectl kustomize", theirs)
            }
            None => {
                println!("render: {:.1} ms; no kubectl here to compare with", ours()?.0 * 1e3);
                Ok(())
            }
        }
    }
}

const CLUSTER: usize = 64 << 10;

/// Every cluster that holds something, read and perhaps compressed as the writer compresses it, on all cores.
fn clusters_alone(disk: &DiskImage, clusters: &[u64], compress: bool) -> Result<()> {
    each_core(clusters.len(), || {
        let mut buffer = vec![0; CLUSTER];
        let mut room = vec![0; CLUSTER];
        let mut zstd = zstd::bulk::Compressor::new(3).context("starting zstd")?;
        Ok(move |at: usize| {
            disk.read_at(&mut buffer, clusters[at] * CLUSTER as u64)?;
            if compress {
                // What does not shrink does not fit.
                let _ = zstd.compress_to_buffer(&buffer, &mut room[..CLUSTER - 512]);
            }
            std::hint::black_box(&room);
            Ok(())
        })
    })
}

/// The data members of all packages, largest first so that the cores end together, and away with them.
fn decompress_all(packages: &[Binary]) -> Result<()> {
    let mut order: Vec<&Binary> = packages.iter().collect();
    order.sort_by_key(|binary| std::cmp::Reverse(binary.size()));
    each_core(order.len(), || {
        Ok(|at: usize| {
            let mut data = Vec::new();
            let Source::Deb(deb) = &order[at].source else { return Err(Error::build("no package file")) };
            std::io::Read::read_to_end(&mut deb.data()?, &mut data).context("decompressing")?;
            std::hint::black_box(data);
            Ok(())
        })
    })
}

/// Calls a worker of each core with numbers below `count` until all are done.
fn each_core<W: FnMut(usize) -> Result<()>>(count: usize, start: impl Fn() -> Result<W> + Sync) -> Result<()> {
    let next = AtomicUsize::new(0);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let work = || {
        let mut worker = start()?;
        loop {
            match next.fetch_add(1, Ordering::Relaxed) {
                at if at < count => worker(at)?,
                _ => return Ok(()),
            }
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(|_| Err(Error::build("a thread died"))))
    })
}

/// All packages into a folder, with dpkg's database but without scripts.
fn unpack(folder: &Folder, packages: &[Binary]) -> Result<()> {
    let root = Root::open(folder.path())?;
    for name in ["bin", "sbin", "lib", "lib64"] {
        std::fs::create_dir_all(folder.path().join("usr").join(name)).context("making a folder")?;
        std::os::unix::fs::symlink(format!("usr/{name}"), folder.path().join(name)).context("making a link")?;
    }
    let mut database = Database::load(&root)?;
    let mut unpacker = Unpacker::new(&root, &mut database, Conffiles::InPlace)?;
    let stage = Stage::new(&folder.path().with_extension("stage"), 0)?;
    let staged: Mutex<BTreeMap<usize, Staged<'_>>> = Mutex::default();
    each_core(packages.len(), || {
        Ok(|at: usize| {
            let one = stage.prepare(&packages[at], None)?;
            staged.lock().expect("no thread panics while it holds this").insert(at, one);
            Ok(())
        })
    })?;
    for (at, staged) in staged.into_inner().expect("all threads have ended well") {
        unpacker.unpack(&packages[at], staged)?;
    }
    database.save(&root)
}

fn options() -> ext4::Options {
    ext4::Options {
        size: 4 << 30,
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

/// The largest package index of the cache, as downloaded.
fn largest_index(cache: &Path) -> Result<Vec<u8>> {
    let mut largest: Option<(u64, PathBuf)> = None;
    let mut folders = vec![cache.join("indexes/sha256")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))? {
            let entry = entry.context("reading the cache")?;
            let about = entry.metadata().context("reading the cache")?;
            if about.is_dir() {
                folders.push(entry.path());
            } else if largest.as_ref().is_none_or(|(size, _)| about.len() > *size) {
                largest = Some((about.len(), entry.path()));
            }
        }
    }
    let (_, path) = largest.ok_or_else(|| Error::build("there is no package index in the cache"))?;
    std::fs::read(&path).with_context(|| format!("reading {}", path.display()))
}

fn decompressed(index: &[u8]) -> Result<String> {
    let mut text = String::new();
    let mut reader = liblzma::read::XzDecoder::new(index);
    std::io::Read::read_to_string(&mut reader, &mut text).context("decompressing the index")?;
    Ok(text)
}

fn read<'a>(request: &'a Request, text: &'a str) -> Result<Universe<'a>> {
    Universe::read(&request.architecture, &[Index { repository: "debian", pin: 500, text }])
}

/// What the documents resolve to, from the cache, in the order in which a build would unpack it if it were one layer.
fn packages(cache: &Path, universe: &Universe<'_>, request: &Request) -> Result<Vec<Binary>> {
    let layers = resolve::resolve(universe, &request.layers, &request.unapproved)?;
    let versions = layers.iter().flat_map(|layer| &layer.packages).map(|chosen| universe.version(chosen.version));
    let open = |sha256: &Digest| {
        Binary::open(&deb_path(cache, sha256))
            .map_err(|error| error.hint("build benches/peers/documents/qcow2 with this cache first"))
    };
    versions.map(|version| open(&version.sha256)).collect()
}
