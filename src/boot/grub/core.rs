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

/// On a CD or on a disk that holds the same bytes: the file system of the medium, from the drive that was booted.
const CD_MODULES: &[&str] = &["biosdisk", "iso9660"];
/// On the EFI system partition of such a medium, where the menu is looked for.
const MEDIUM_MODULES: &[&str] = &[
    "part_gpt",
    "fat",
    "iso9660",
    "search",
    "search_fs_file",
    "normal",
    "configfile",
    "linux",
    "test",
    "echo",
    "serial",
    "terminal",
];

/// One core image: what it is made of and how it starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CoreImage {
    platform: Platform,
    /// Of its files while it is made, and of what it is for.
    name: &'static str,
    format: &'static str,
    prefix: String,
    /// Built in.
    config: String,
    modules: &'static [&'static str],
}

impl CoreImage {
    /// Of an installed system: finds `/boot` by UUID.
    pub fn disk(platform: Platform, boot: &Boot) -> CoreImage {
        let (prefix, config) = (format!("{}/grub", boot.path), boot.prefix_config());
        let modules = match platform {
            Platform::Bios => BIOS_MODULES,
            Platform::Efi => EFI_MODULES,
        };
        let name = platform.name();
        CoreImage { platform, name, format: name, prefix, config, modules }
    }

    /// Of a medium that BIOSes start as a CD or as a disk. It belongs to no medium in particular: GRUB knows the drive
    /// that it came from.
    pub fn cd() -> CoreImage {
        CoreImage {
            platform: Platform::Bios,
            name: "cd",
            format: "i386-pc-eltorito",
            prefix: "/boot/grub".to_owned(),
            config: String::new(),
            modules: CD_MODULES,
        }
    }

    /// Of such a medium's EFI system partition, for distributions without a signed one. Reads the `grub.cfg` beside it.
    pub fn efi_medium() -> CoreImage {
        CoreImage {
            platform: Platform::Efi,
            name: "medium",
            format: "x86_64-efi",
            prefix: "/EFI/BOOT".to_owned(),
            config: String::new(),
            modules: MEDIUM_MODULES,
        }
    }

    fn command(&self) -> Vec<String> {
        let CoreImage { name, format, prefix, .. } = self;
        let fixed = [
            "grub-mkimage".to_owned(),
            format!("--directory=/usr/lib/grub/{}", self.platform.name()),
            format!("--format={format}"),
            format!("--prefix={prefix}"),
        ];
        // A configuration of nothing would still replace the search for `grub.cfg`.
        let config = (!self.config.is_empty()).then(|| format!("--config=/{FOLDER}/{name}.cfg"));
        let output = format!("--output=/{FOLDER}/{name}.img");
        let modules = self.modules.iter().map(|module| (*module).to_owned());
        fixed.into_iter().chain(config).chain([output]).chain(modules).collect()
    }

    /// What decides a core image beside the Tree it is made in.
    pub fn identity(&self) -> Digest {
        let parts = [vec!["core image 1".to_owned(), self.config.clone()], self.command()].concat();
        // JSON keeps the parts apart whatever is in them.
        Digest::of(serde_json::Value::from(parts).to_string().as_bytes())
    }
}

/// Makes a core image. `root` is the target's root on the host, `tree` the same as data; `scratch` an
/// empty folder of the host that the job may write to.
pub fn make(image: &CoreImage, tree: &Tree, sandbox: &dyn Sandbox, root: &Path, scratch: &Path) -> Result<Vec<u8>> {
    let name = image.name;
    if !tree.contains(&TreePath::literal("usr/bin/grub-mkimage")) {
        return Err(Error::new(Kind::Documents, "making GRUB's core image needs `grub-mkimage` in the image")
            .hint("add `grub-common` to `software.packages`"));
    }
    if !image.platform.installed(tree) {
        let package = image.platform.package();
        return Err(Error::new(Kind::Documents, format!("`{package}` is not installed: GRUB's modules are missing"))
            .hint(format!("add `{package}` to `software.packages`")));
    }
    let context = || format!("making GRUB's core image for {name}");
    let configuration = scratch.join(format!("{name}.cfg"));
    // New, or an error: what an earlier job left in the folder is not followed to elsewhere.
    let made = File::options().write(true).create_new(true).open(&configuration);
    made.and_then(|mut file| file.write_all(image.config.as_bytes())).with_context(context)?;
    let mut job = Job::new(image.command());
    job.binds.push(Bind { source: scratch.to_owned(), target: TreePath::literal(FOLDER), read_only: false });
    let finished = sandbox.run(root, &job, &mut |_| {}).with_context(context)?;
    if !finished.success {
        let message = format!("grub-mkimage ended with {}: {}", finished.status, finished.tail.trim());
        return Err(Error::new(finished.kind(), message).add_context(context()));
    }
    read_result(&scratch.join(format!("{name}.img"))).with_context(context)
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
    of_package(tree, "usr/lib/grub/i386-pc/boot.img")
}

/// The target's `boot_hybrid.img`: the first sector of a medium that is a CD and a disk.
pub fn hybrid_boot_image(tree: &Tree) -> Result<Vec<u8>> {
    of_package(tree, "usr/lib/grub/i386-pc/boot_hybrid.img")
}

fn of_package(tree: &Tree, path: &'static str) -> Result<Vec<u8>> {
    let path = TreePath::literal(path);
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
