//! The initramfs: made once, after all packages, by the distribution's own initramfs-tools.
//!
//! Owns: which kernels get one, how the tool is called, and which files it leaves. The distribution's hooks decide what
//! goes in; the two shell functions that cost nearly all the time (a stock run starts 12,000 processes, five for every
//! file) are answered by native code ([`service`]) with the same result. Where zstd is asked for and the target does not
//! have it, the tool falls back to gzip; the builder has zstd, so the archive is compressed with that ([`archive`]),
//! plain scripts or not. The result is an overlay: only what the tool added: `/boot/initrd.img-<version>`, and its state file in `/var/lib/initramfs-tools` where the release
//! keeps one (without which `update-initramfs -u` in the running node would not know the kernel).

mod archive;
mod copy;
mod cpio;
mod hooks;
mod modinfo;
mod service;

use std::path::Path;
use std::sync::Arc;

use sha1::{Digest as _, Sha1};

use self::archive::Packer;
use self::service::Service;
use crate::error::{Context, Error, Result};
use crate::package::root::Root;
use crate::report::{Reporter, words};
use crate::sandbox::{Bind, Job, Sandbox};
use crate::tree::store::PackWriter;
use crate::tree::{Entry, Kind, Meta, Mtime, Origin, Tree, TreePath};

/// The versions of all kernels in `/boot`, in byte order.
pub fn kernel_versions(tree: &Tree) -> Vec<String> {
    let boot = TreePath::literal("boot");
    let names = tree.children(&boot).filter(|(_, entry)| matches!(entry.kind, Kind::File(_)));
    names
        .filter_map(|(path, _)| std::str::from_utf8(path.file_name()).ok()?.strip_prefix("vmlinuz-").map(str::to_owned))
        .collect()
}

/// Where and how it is made.
pub struct Workshop<'a> {
    /// The tree lies here, materialised.
    pub root: &'a Path,
    pub sandbox: &'a dyn Sandbox,
    /// `SOURCE_DATE_EPOCH`.
    pub epoch: Mtime,
    /// Leave all the work to the distribution's scripts. The result is the same.
    pub plain: bool,
    pub reporter: &'a Reporter,
}

/// How the origin of what is made here begins; the version follows.
const ORIGIN: &str = "initramfs of kernel ";

/// Makes the initramfs of every kernel of `tree` and gives them as an overlay.
pub fn build(tree: &Tree, workshop: &Workshop<'_>, pack: &PackWriter) -> Result<Tree> {
    let Workshop { root, epoch, reporter, .. } = *workshop;
    let versions = kernel_versions(tree);
    if versions.is_empty() {
        return Err(Error::build("no kernel in /boot: the package set installs none")
            .hint("add a kernel package such as `linux-image-amd64` to `software.packages`"));
    }
    let mut overlay = Tree::new();
    for version in versions {
        let step = reporter.step(format!("initramfs {version}"));
        let fell_back = update_initramfs(workshop, &version)?;
        if fell_back && reads_zstd(root, &version)? {
            repack(root, &version)?;
        }
        let origin = origin(&version);
        let mut size = 0;
        for (path, required) in
            [(format!("boot/initrd.img-{version}"), true), (format!("var/lib/initramfs-tools/{version}"), false)]
        {
            let path = TreePath::new(&path)
                .ok_or_else(|| Error::build(format!("kernel version `{version}` is not a file name")))?;
            let context = || format!("reading {path} of the new root file system");
            let bytes = match Root::open(root)?.read(&path)? {
                None if !required => continue,
                bytes => bytes.ok_or_else(|| Error::build("update-initramfs has not made it")).with_context(context)?,
            };
            let content = pack.add(&bytes).with_context(context)?;
            size = size.max(content.size());
            let meta = Meta { mtime: epoch, ..Meta::root(0o644) };
            overlay.put(&path, Entry { meta, kind: Kind::File(content), origin: origin.clone() })?;
        }
        step.finish(words::bytes(size));
    }
    Ok(overlay)
}

/// Where an initramfs comes from.
pub fn origin(version: &str) -> Origin {
    Arc::from(format!("{ORIGIN}{version}"))
}

pub fn is_origin(origin: &Origin) -> bool {
    origin.starts_with(ORIGIN)
}

/// Runs the tool; true if it took gzip because zstd is missing.
fn update_initramfs(workshop: &Workshop<'_>, version: &str) -> Result<bool> {
    let Workshop { root, sandbox, epoch, .. } = *workshop;
    let context = || format!("making the initramfs of kernel {version}");
    let mut job = Job::new(["update-initramfs", "-c", "-k", version]);
    job.environment.push(("SOURCE_DATE_EPOCH".into(), epoch.seconds.to_string()));
    // Beside the target, so that a sandbox without mounts can move it there.
    let area = root.parent().unwrap_or(root);
    let pipes = tempfile::Builder::new().prefix("hooks-").tempdir_in(area).with_context(context)?;
    if !workshop.plain {
        // zstd on all cores; how many there are does not change what comes out.
        job.environment.push(("ZSTD_NBTHREADS".into(), "0".into()));
    }
    let service = if workshop.plain { None } else { help_hooks(root, pipes.path(), &mut job).with_context(context)? };
    let mut fell_back = false;
    let mut on_line = |line: &str| {
        fell_back |= archive::says_missing(line);
        tracing::debug!("update-initramfs: {line}");
    };
    let finished = sandbox.run(root, &job, &mut on_line).with_context(context)?;
    if let Some(service) = service {
        let counts = service.stop().with_context(context)?;
        tracing::debug!(
            "hooks asked for help: {} answered, {} left to the distribution",
            counts.answered,
            counts.plain
        );
    }
    if !finished.success {
        let message = format!("update-initramfs: {}\n{}", finished.status, finished.tail.trim_end());
        return Err(Error::new(finished.kind(), message)).with_context(context);
    }
    Ok(fell_back)
}

fn reads_zstd(root: &Path, version: &str) -> Result<bool> {
    let root = Root::open(root)?;
    for place in [format!("lib/modules/{version}/config-{version}"), format!("boot/config-{version}")] {
        let config = TreePath::new(&place).map(|path| root.read_text(&path)).transpose()?.unwrap_or_default();
        if !config.is_empty() {
            return Ok(archive::kernel_reads_zstd(&config));
        }
    }
    Ok(false)
}

/// Compresses with zstd what the tool has compressed with gzip. It remembers the SHA-1 of what it made in some releases.
fn repack(root: &Path, version: &str) -> Result<()> {
    let root = Root::open(root)?;
    let context = || format!("compressing the initramfs of kernel {version}");
    let place =
        |path: String| TreePath::new(&path).ok_or_else(|| Error::build("not a file name")).with_context(context);
    let (image, state) =
        (place(format!("boot/initrd.img-{version}"))?, place(format!("var/lib/initramfs-tools/{version}"))?);
    let Some(bytes) = root.read(&image)? else { return Ok(()) };
    let Some(packed) = Packer::new().repack(&bytes).with_context(context)? else { return Ok(()) };
    root.write(&image, &packed, 0o644)?;
    let remembered = root.read_text(&state)?;
    let sum = |bytes: &[u8]| hex::encode(Sha1::digest(bytes));
    if let Some(rest) = remembered.strip_prefix(&sum(&bytes)) {
        root.write(&state, format!("{}{rest}", sum(&packed)).as_bytes(), 0o644)?;
    }
    Ok(())
}

/// Lays our answers over the job, where the release's `hook-functions` are known.
fn help_hooks(root: &Path, folder: &Path, job: &mut Job) -> Result<Option<Service>> {
    let path = TreePath::literal(hooks::FUNCTIONS);
    let functions = Root::open(root)?.read_text(&path)?;
    let Some((functions, behaviour)) = hooks::replace(&functions) else {
        tracing::debug!("{path} is not a version that is known: hooks run as they are");
        return Ok(None);
    };
    let (pipes, text) = (folder.join("pipes"), folder.join("hook-functions"));
    std::fs::create_dir(&pipes).with_context(|| format!("making {}", pipes.display()))?;
    std::fs::write(&text, functions).with_context(|| format!("writing {}", text.display()))?;
    let program = TreePath::literal(hooks::PROGRAM);
    if let Some(text) = hooks::replace_compression(&Root::open(root)?.read_text(&program)?) {
        let source = folder.join("mkinitramfs");
        std::fs::write(&source, text).with_context(|| format!("writing {}", source.display()))?;
        std::fs::set_permissions(&source, std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .with_context(|| format!("setting the mode of {}", source.display()))?;
        job.binds.push(Bind { source, target: program, read_only: true });
    }
    let service = Service::start(&pipes, root, behaviour)?;
    job.binds.push(Bind { source: pipes, target: TreePath::literal(hooks::FOLDER), read_only: false });
    job.binds.push(Bind { source: text, target: path, read_only: true });
    Ok(Some(service))
}

/// Puts the overlay on the tree it was made for.
pub fn install(tree: &mut Tree, overlay: &Tree) -> Result<()> {
    for (path, entry) in overlay.iter().filter(|(_, entry)| !matches!(entry.kind, Kind::Directory)) {
        tree.put(path, entry.clone())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::Finished;
    use crate::tree::{Digest, store::Store};

    /// Writes what the tool would.
    struct Tool;

    impl Sandbox for Tool {
        fn run(&self, root: &Path, job: &Job, on_line: &mut dyn FnMut(&str)) -> Result<Finished> {
            let version = &job.argv[3];
            assert_eq!(job.environment[0], ("SOURCE_DATE_EPOCH".to_owned(), "7".to_owned()));
            if version == "broken" {
                return Ok(Finished {
                    success: false,
                    status: "exit code 1".into(),
                    tail: "cat: write error: No space left on device\n".into(),
                });
            }
            for folder in ["boot", "var/lib/initramfs-tools"] {
                std::fs::create_dir_all(root.join(folder)).unwrap();
            }
            let initrd = root.join(format!("boot/initrd.img-{version}"));
            if version == "leak" {
                std::os::unix::fs::symlink("/etc/passwd", &initrd).unwrap();
            } else {
                std::fs::write(&initrd, "cpio").unwrap();
            }
            let state = root.join(format!("var/lib/initramfs-tools/{version}"));
            std::fs::write(&state, "sum").unwrap();
            if version.starts_with("gzip") {
                on_line("W: No zstd in /usr/bin:/sbin:/bin, using gzip");
                std::fs::write(&initrd, gzip()).unwrap();
                std::fs::write(&state, format!("{}  /boot/x\n", hex::encode(Sha1::digest(gzip())))).unwrap();
                let config = if version == "gzip-old" { "# CONFIG_RD_ZSTD is not set\n" } else { "CONFIG_RD_ZSTD=y\n" };
                std::fs::write(root.join(format!("boot/config-{version}")), config).unwrap();
            }
            Ok(Finished { success: true, status: "exit code 0".into(), tail: String::new() })
        }
    }

    fn gzip() -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut encoder, b"archive").unwrap();
        encoder.finish().unwrap()
    }

    fn run(kernels: &[&str]) -> Result<Tree> {
        let cache = tempfile::tempdir().unwrap();
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(cache.path())?;
        let writer = store.writer(Digest::of(b"x"))?;
        let mut tree = Tree::new();
        for version in kernels {
            let path = TreePath::new(format!("boot/vmlinuz-{version}")).unwrap();
            tree.write_file(&path, "kernel", Meta::root(0o644), &Arc::from("t"))?;
        }
        let epoch = Mtime { seconds: 7, nanoseconds: 0 };
        let reporter = Reporter::quiet();
        let workshop = Workshop { root: root.path(), sandbox: &Tool, epoch, plain: false, reporter: &reporter };
        let overlay = build(&tree, &workshop, &writer)?;
        install(&mut tree, &overlay)?;
        Ok(tree)
    }

    #[test]
    fn every_kernel_gets_one() {
        let tree = run(&["6.1.0-1-amd64", "6.1.0-2-amd64"]).unwrap();
        for version in ["6.1.0-1-amd64", "6.1.0-2-amd64"] {
            let path = TreePath::new(format!("boot/initrd.img-{version}")).unwrap();
            assert_eq!(tree.read_file(&path).unwrap().unwrap(), b"cpio");
            assert_eq!(tree.get(&path).unwrap().meta.mtime.seconds, 7);
        }
    }

    #[test]
    fn what_fell_back_to_gzip_is_compressed_with_zstd_where_the_kernel_reads_it() {
        let tree = run(&["gzip", "gzip-old"]).unwrap();
        let read = |path: String| tree.read_file(&TreePath::new(path).unwrap()).unwrap().unwrap();
        let packed = read("boot/initrd.img-gzip".into());
        assert_eq!(zstd::decode_all(packed.as_slice()).unwrap(), b"archive");
        let state = read("var/lib/initramfs-tools/gzip".into());
        assert_eq!(state, format!("{}  /boot/x\n", hex::encode(Sha1::digest(&packed))).as_bytes());
        assert_eq!(read("boot/initrd.img-gzip-old".into()), gzip());
    }

    #[test]
    fn a_link_does_not_bring_in_a_file_of_the_host() {
        assert!(run(&["leak"]).unwrap_err().to_string().contains("has not made it"));
    }

    #[test]
    fn failures_say_what_the_tool_said() {
        let full = run(&["broken"]).unwrap_err();
        assert!(full.to_string().contains("write error"), "{full}");
        assert_eq!(full.kind(), crate::error::Kind::Space);
        assert!(run(&[]).unwrap_err().hints()[0].contains("linux-image-amd64"));
    }
}
