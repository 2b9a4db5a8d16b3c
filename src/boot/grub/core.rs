//! GRUB's core images, made by the target's own grub-mkimage(1) in the sandbox.
//!
//! Owns: which modules a core image has and how the program is called. A core image finds `/boot` by UUID and loads
//! everything else from there.

use std::path::Path;

use super::{Boot, Platform};
use crate::error::{Context, Error, Kind, Result};
use crate::sandbox::{Bind, Job, Sandbox};
use crate::tree::{Tree, TreePath};

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
    std::fs::write(&configuration, boot.prefix_config()).with_context(context)?;
    let output = format!("/{FOLDER}/{name}.img");
    let fixed = [
        "grub-mkimage".to_owned(),
        format!("--directory=/usr/lib/grub/{name}"),
        format!("--format={name}"),
        format!("--prefix={}/grub", boot.path),
        format!("--config=/{FOLDER}/{name}.cfg"),
        format!("--output={output}"),
    ];
    let modules = match platform {
        Platform::Bios => BIOS_MODULES,
        Platform::Efi => EFI_MODULES,
    };
    let mut job = Job::new(fixed.into_iter().chain(modules.iter().map(|module| (*module).to_owned())));
    job.binds.push(Bind { source: scratch.to_owned(), target: TreePath::literal(FOLDER), read_only: false });
    let finished = sandbox.run(root, &job, &mut |_| {}).with_context(context)?;
    if !finished.success {
        return Err(Error::build(format!("grub-mkimage ended with {}: {}", finished.status, finished.tail.trim()))
            .add_context(context()));
    }
    std::fs::read(scratch.join(format!("{name}.img"))).with_context(context)
}

/// The target's `boot.img`.
pub fn boot_image(tree: &Tree) -> Result<Vec<u8>> {
    let path = TreePath::literal("usr/lib/grub/i386-pc/boot.img");
    tree.read_file(&path)?.ok_or_else(|| {
        Error::new(Kind::Documents, format!("{path} is missing")).hint("add `grub-pc-bin` to `software.packages`")
    })
}
