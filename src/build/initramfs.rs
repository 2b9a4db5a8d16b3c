//! The initramfs: made once, after all packages, by the distribution's own initramfs-tools.
//!
//! Owns: which kernels get one, how the tool is called, and which files it leaves. The result is an overlay: only
//! what the tool added: `/boot/initrd.img-<version>`, and its state file in `/var/lib/initramfs-tools` where the release
//! keeps one (without which `update-initramfs -u` in the running node would not know the kernel).

use std::path::Path;
use std::sync::Arc;

use crate::error::{Context, Error, Result};
use crate::package::root::Root;
use crate::report::Reporter;
use crate::sandbox::{Job, Sandbox};
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

/// Makes the initramfs of every kernel of `tree`, which must lie materialised in `root`, and gives them as an overlay.
pub fn build(
    root: &Path,
    tree: &Tree,
    epoch: Mtime,
    sandbox: &dyn Sandbox,
    pack: &PackWriter,
    reporter: &Reporter,
) -> Result<Tree> {
    let versions = kernel_versions(tree);
    if versions.is_empty() {
        return Err(Error::build("no kernel in /boot: the package set installs none")
            .hint("add a kernel package such as `linux-image-amd64` to `software.packages`"));
    }
    let mut overlay = Tree::new();
    for version in versions {
        let step = reporter.step(format!("initramfs {version}"));
        update_initramfs(root, &version, epoch, sandbox)?;
        let origin: Origin = Arc::from(format!("initramfs of kernel {version}"));
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
        step.finish(format!("{} MiB", size >> 20));
    }
    Ok(overlay)
}

fn update_initramfs(root: &Path, version: &str, epoch: Mtime, sandbox: &dyn Sandbox) -> Result<()> {
    let mut job = Job::new(["update-initramfs", "-c", "-k", version]);
    job.environment.push(("SOURCE_DATE_EPOCH".into(), epoch.seconds.to_string()));
    let context = || format!("making the initramfs of kernel {version}");
    let finished =
        sandbox.run(root, &job, &mut |line| tracing::debug!("update-initramfs: {line}")).with_context(context)?;
    if !finished.success {
        return Err(Error::build(format!("update-initramfs: {}\n{}", finished.status, finished.tail.trim_end())))
            .with_context(context);
    }
    Ok(())
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
        fn run(&self, root: &Path, job: &Job, _: &mut dyn FnMut(&str)) -> Result<Finished> {
            let version = &job.argv[3];
            assert_eq!(job.environment, [("SOURCE_DATE_EPOCH".to_owned(), "7".to_owned())]);
            if version == "broken" {
                return Ok(Finished { success: false, status: "exit code 1".into(), tail: "no space\n".into() });
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
            std::fs::write(root.join(format!("var/lib/initramfs-tools/{version}")), "sum").unwrap();
            Ok(Finished { success: true, status: "exit code 0".into(), tail: String::new() })
        }
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
        let overlay = build(root.path(), &tree, epoch, &Tool, &writer, &Reporter::quiet())?;
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
    fn a_link_does_not_bring_in_a_file_of_the_host() {
        assert!(run(&["leak"]).unwrap_err().to_string().contains("has not made it"));
    }

    #[test]
    fn failures_say_what_the_tool_said() {
        assert!(run(&["broken"]).unwrap_err().to_string().contains("no space"));
        assert!(run(&[]).unwrap_err().hints()[0].contains("linux-image-amd64"));
    }
}
