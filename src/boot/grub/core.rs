//! GRUB's core images, made by the target's own grub-mkimage(1) in the sandbox.
//!
//! Owns: which modules a core image has and how the program is called. A core image finds `/boot` by UUID and loads
//! everything else from there.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use super::{Boot, Platform};
use crate::error::{Context, Error, Kind, Result};
use crate::sandbox::{Bind, Job, Sandbox};
use crate::tree::{Digest, Tree, TreePath};

/// The way from the firmware to `/boot/grub`: disk, GPT, ext4, search by UUID. Modules that these need come along.
const BIOS_MODULES: &[&str] = &["biosdisk", "part_gpt", "ext2", "search_fs_uuid"];
/// The same for UEFI, which brings its own disk driver; `normal` and the rest so that `configfile` works from the
/// stub as it does with a signed image.
const EFI_MODULES: &[&str] = &[
    "part_gpt",
    "fat",
    "ext2",
    "search_fs_uuid",
    "normal",
    "configfile",
    "linux",
    "test",
    "echo",
    "serial",
    "terminal",
];

/// Where the job sees its folder. Part of every Debian system (base-files).
const FOLDER: &str = "mnt";
/// A core image has less than one MiB.
const CORE_BYTES: u64 = 64 << 20;

/// Makes the core image of a platform. `root` is the target's root on the host, `tree` the same as data; `scratch` an
/// empty folder of the host that the job may write to.
pub fn make(
    platform: Platform,
    boot: &Boot,
    tree: &Tree,
    sandbox: &dyn Sandbox,
    root: &Path,
    scratch: &Path,
) -> Result<Vec<u8>> {
    let name = platform.name();
    if !tree.contains(&TreePath::literal("usr/bin/grub-mkimage")) {
        return Err(Error::new(Kind::Documents, "making GRUB's core image needs `grub-mkimage` in the image")
            .hint("add `grub-common` to `software.packages`"));
    }
    let context = || format!("making GRUB's core image for {name}");
    let configuration = scratch.join(format!("{name}.cfg"));
    // New, or an error: what an earlier job left in the folder is not followed to elsewhere.
    let made = File::options().write(true).create_new(true).open(&configuration);
    made.and_then(|mut file| file.write_all(boot.prefix_config().as_bytes())).with_context(context)?;
    let mut job = Job::new(command(platform, boot));
    job.binds.push(Bind { source: scratch.to_owned(), target: TreePath::literal(FOLDER), read_only: false });
    let finished = sandbox.run(root, &job, &mut |_| {}).with_context(context)?;
    if !finished.success {
        let message = format!("grub-mkimage ended with {}: {}", finished.status, finished.tail.trim());
        return Err(Error::new(finished.kind(), message).add_context(context()));
    }
    read_result(&scratch.join(format!("{name}.img"))).with_context(context)
}

fn command(platform: Platform, boot: &Boot) -> Vec<String> {
    let name = platform.name();
    let modules = match platform {
        Platform::Bios => BIOS_MODULES,
        Platform::Efi => EFI_MODULES,
    };
    let fixed = [
        "grub-mkimage".to_owned(),
        format!("--directory=/usr/lib/grub/{name}"),
        format!("--format={name}"),
        format!("--prefix={}/grub", boot.path),
        format!("--config=/{FOLDER}/{name}.cfg"),
        format!("--output=/{FOLDER}/{name}.img"),
    ];
    fixed.into_iter().chain(modules.iter().map(|module| (*module).to_owned())).collect()
}

/// What decides a core image beside the Tree it is made in.
pub fn identity(platform: Platform, boot: &Boot) -> Digest {
    let parts = [vec!["core image 1".to_owned(), boot.prefix_config()], command(platform, boot)].concat();
    // JSON keeps the parts apart whatever is in them.
    Digest::of(serde_json::Value::from(parts).to_string().as_bytes())
}

/// A plain file that a job has made. The job is foreign: it may as well have made a link to a file of the host.
fn read_result(path: &Path) -> Result<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty()).context("opening the result")?);
    let meta = file.metadata().context("looking at the result")?;
    if !meta.is_file() || meta.len() > CORE_BYTES {
        return Err(Error::build("the result is not a file of reasonable size"));
    }
    let mut bytes = Vec::new();
    file.take(CORE_BYTES).read_to_end(&mut bytes).context("reading the result")?;
    Ok(bytes)
}

/// The target's `boot.img`.
pub fn boot_image(tree: &Tree) -> Result<Vec<u8>> {
    let path = TreePath::literal("usr/lib/grub/i386-pc/boot.img");
    tree.read_file(&path)?.ok_or_else(|| {
        Error::new(Kind::Documents, format!("{path} is missing")).hint("add `grub-pc-bin` to `software.packages`")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_a_file_and_no_way_to_another() {
        let folder = tempfile::tempdir().unwrap();
        let (plain, link) = (folder.path().join("plain"), folder.path().join("link"));
        std::fs::write(&plain, "core").unwrap();
        std::os::unix::fs::symlink(&plain, &link).unwrap();
        assert_eq!(read_result(&plain).unwrap(), b"core");
        assert!(read_result(&link).is_err());
        assert!(read_result(folder.path()).is_err());
    }
}
