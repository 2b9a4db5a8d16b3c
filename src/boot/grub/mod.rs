//! GRUB 2: its files in `/boot/grub`, its menu, its core images.
//!
//! Owns: [`configure`], the pure edit of the Tree, and the images that `build::pack` writes outside of file systems
//! ([`core`], [`bios`]). Laid out as grub-install(8) does, so that `grub-install` and `update-grub` inside the running
//! node go on from here.

pub mod bios;
pub mod core;
pub mod efi;
pub mod menu;

use std::cmp::Ordering;

pub use self::menu::Kernel;
use self::menu::Menu;
use super::layout::Layout;
use crate::api::params::Params;
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::tree::{Entry, Kind, Meta, Mtime, Origin, Tree, TreePath};

/// What the environment block starts with, and its fixed size (grub/lib/envblk.h).
const ENVIRONMENT_HEADER: &[u8] = b"# GRUB Environment Block\n";
const ENVIRONMENT_SIZE: usize = 1024;

/// A platform of GRUB: the folder of its modules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Platform {
    Bios,
    Efi,
}

impl Platform {
    pub const ALL: [Platform; 2] = [Platform::Bios, Platform::Efi];

    pub fn name(self) -> &'static str {
        match self {
            Platform::Bios => "i386-pc",
            Platform::Efi => "x86_64-efi",
        }
    }

    /// The package that brings the modules.
    pub fn package(self) -> &'static str {
        match self {
            Platform::Bios => "grub-pc-bin",
            Platform::Efi => "grub-efi-amd64-bin",
        }
    }

    fn modules(self) -> TreePath {
        match self {
            Platform::Bios => TreePath::literal("usr/lib/grub/i386-pc"),
            Platform::Efi => TreePath::literal("usr/lib/grub/x86_64-efi"),
        }
    }

    fn installed(self, tree: &Tree) -> bool {
        tree.contains(&self.modules().append(&TreePath::literal("kernel.img")))
    }
}

/// Writes `/etc/default/grub`, `/boot/grub` and the EFI system partition's files.
pub fn configure(tree: &mut Tree, params: &Params, layout: &Layout, mtime: Mtime) -> Result<()> {
    check_packages(tree, layout)?;
    let origin: Origin = "boot loader (storage, kernel)".into();
    let words = super::command_line::words(&params.kernel.command_line)?;
    let kernels = kernels(tree);
    if kernels.is_empty() {
        return Err(Error::new(ErrorKind::Documents, "there is no kernel in /boot").hint(
            "add a kernel package to `software.packages`: `linux-image-amd64` (Debian), `linux-image-generic` (Ubuntu)",
        ));
    }
    let boot = Boot::of(layout)?;
    let distributor = distributor(&params.distribution.name);
    let menu = Menu {
        distributor: &distributor,
        kernels: &kernels,
        boot_uuid: &boot.uuid,
        boot_path: &boot.path,
        root_uuid: &layout.root()?.uuid_text(),
        command_line: &words,
        timeout: params.kernel.grub.timeout,
        serial_command: &params.kernel.grub.serial_command,
    };
    let file = Meta { mtime, ..Meta::root(0o644) };
    tree.write_file(&TreePath::literal("etc/default/grub"), menu.defaults()?, file.clone(), &origin)?;
    // As grub-mkconfig leaves it: nobody writes it by hand.
    let read_only = Meta { mtime, ..Meta::root(0o444) };
    tree.write_file(&TreePath::literal("boot/grub/grub.cfg"), menu.config()?, read_only, &origin)?;
    let mut environment = ENVIRONMENT_HEADER.to_vec();
    environment.resize(ENVIRONMENT_SIZE, b'#');
    tree.write_file(&TreePath::literal("boot/grub/grubenv"), environment, file, &origin)?;
    copy_modules(tree, &origin)?;
    if layout.esp().is_some() {
        efi::configure(tree, params, layout, &boot, mtime)?;
    }
    Ok(())
}

/// Where GRUB finds `/boot`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boot {
    /// UUID of the file system that holds `/boot`.
    pub uuid: String,
    /// `/boot` as seen in that file system: `/boot`, or nothing when it has a partition of its own.
    pub path: String,
}

impl Boot {
    pub fn of(layout: &Layout) -> Result<Boot> {
        let (mounted, inside) = layout
            .locate(&TreePath::literal("boot"))
            .ok_or_else(|| Error::new(ErrorKind::Documents, "no partition holds /boot"))?;
        let path = if inside.is_root() { String::new() } else { inside.to_string() };
        Ok(Boot { uuid: mounted.uuid_text(), path })
    }

    /// The configuration built into a core image or lying where a signed one looks: find `/boot` by UUID, whatever
    /// the firmware calls the disks.
    pub fn prefix_config(&self) -> String {
        format!("search.fs_uuid {} root\nset prefix=($root)'{}/grub'\n", self.uuid, self.path)
    }
}

/// Every way to boot that the layout has room for needs its packages.
fn check_packages(tree: &Tree, layout: &Layout) -> Result<()> {
    let missing = |what: &str, package: &str, flag: &str| {
        Err(Error::new(
            ErrorKind::Documents,
            format!("the layout has a partition for {what}, but `{package}` is not installed"),
        )
        .hint(format!("add `{package}` to `software.packages`, or leave the partition with flag `{flag}` out")))
    };
    if layout.bios_boot().is_some() && !Platform::Bios.installed(tree) {
        return missing("BIOS boot", Platform::Bios.package(), "bios_grub");
    }
    if layout.esp().is_some() && !Platform::Efi.installed(tree) && efi::SignedChain::find(tree)?.is_none() {
        return missing("UEFI boot", Platform::Efi.package(), "esp");
    }
    // It brings update-grub and the hook that runs it when a kernel comes or goes in the running node.
    if !tree.contains(&TreePath::literal("etc/kernel/postinst.d/zz-update-grub")) {
        return Err(Error::new(
            ErrorKind::Documents,
            "`grub2-common` is not installed: a new kernel would never get into the boot menu",
        )
        .hint("add `grub2-common` to `software.packages`"));
    }
    if layout.bios_boot().is_none() && layout.esp().is_none() {
        return Err(Error::new(
            ErrorKind::Documents,
            "no firmware could boot this disk: it has neither a `bios_grub` nor an `esp` partition",
        )
        .hint("leave `storage.partitions` out to get the default layout"));
    }
    Ok(())
}

/// All kernels of `/boot`, newest first.
pub fn kernels(tree: &Tree) -> Vec<Kernel> {
    let boot = TreePath::literal("boot");
    let mut kernels: Vec<Kernel> = tree
        .children(&boot)
        .filter(|(_, entry)| matches!(entry.kind, Kind::File(_) | Kind::HardLink(_)))
        .filter_map(|(path, _)| std::str::from_utf8(path.file_name()).ok())
        .filter_map(|file| Some((file, file.strip_prefix("vmlinuz-")?)))
        // Names from packages; anything else could not be written into the menu unquoted.
        .filter(|(_, version)| version.chars().all(|c| c.is_ascii_alphanumeric() || "._+~-".contains(c)))
        .map(|(file, version)| {
            let initrd = format!("initrd.img-{version}");
            let present = TreePath::new(format!("boot/{initrd}")).is_some_and(|path| tree.contains(&path));
            Kernel { file: file.to_owned(), version: version.to_owned(), initrd: present.then_some(initrd) }
        })
        .collect();
    kernels.sort_by(|a, b| compare_versions(&b.version, &a.version));
    kernels
}

/// Runs of digits by value, everything else by byte, as `sort -V` does for kernel names.
fn compare_versions(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    while let (Some(x), Some(y)) = (a.first(), b.first()) {
        let order = if x.is_ascii_digit() && y.is_ascii_digit() {
            let (left, right) = (take_number(&mut a), take_number(&mut b));
            left.len().cmp(&right.len()).then_with(|| left.cmp(right))
        } else {
            (a, b) = (&a[1..], &b[1..]);
            x.cmp(y)
        };
        if order != Ordering::Equal {
            return order;
        }
    }
    a.len().cmp(&b.len())
}

/// The digits at the front, without leading zeros.
fn take_number<'a>(text: &mut &'a [u8]) -> &'a [u8] {
    let end = text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    *text = rest;
    let zeros = digits.iter().take_while(|digit| **digit == b'0').count();
    &digits[zeros..]
}

/// What grub-install copies: modules, their lists, the BIOS helpers, a font.
fn copy_modules(tree: &mut Tree, origin: &Origin) -> Result<()> {
    for platform in Platform::ALL {
        for (path, entry) in platform_files(tree, platform, origin)? {
            tree.put(&path, entry)?;
        }
    }
    Ok(())
}

/// The same of one platform, with their places; nothing if it is not installed.
pub(super) fn platform_files(tree: &Tree, platform: Platform, origin: &Origin) -> Result<Vec<(TreePath, Entry)>> {
    if !platform.installed(tree) {
        return Ok(Vec::new());
    }
    let source = platform.modules();
    let wanted = |name: &[u8]| {
        [&b".mod"[..], b".lst", b".o"].iter().any(|suffix| name.ends_with(suffix)) || name == b"modinfo.sh"
    };
    let names = tree.children(&source).map(|(path, _)| path.file_name()).filter(|name| wanted(name));
    let target = TreePath::literal("boot/grub").join(platform.name().as_bytes());
    let copy = |name: &[u8]| Ok((target.join(name), copied(tree, &source.join(name), origin)?));
    let mut files = names.map(copy).collect::<Result<Vec<_>>>()?;
    let font = TreePath::literal("usr/share/grub/unicode.pf2");
    if tree.contains(&font) {
        files.push((TreePath::literal("boot/grub/fonts/unicode.pf2"), copied(tree, &font, origin)?));
    }
    Ok(files)
}

/// Copies one file (links followed) as root-owned 0644, with the times of the source.
fn copy_file(tree: &mut Tree, from: &TreePath, to: &TreePath, origin: &Origin) -> Result<()> {
    let entry = copied(tree, from, origin)?;
    tree.put(to, entry)?;
    Ok(())
}

/// The same from one Tree into another.
fn copy_between(from: &Tree, path: &TreePath, to: &mut Tree, target: &TreePath, origin: &Origin) -> Result<()> {
    to.put(target, copied(from, path, origin)?)?;
    Ok(())
}

fn copied(tree: &Tree, from: &TreePath, origin: &Origin) -> Result<Entry> {
    let at = tree.resolve(from)?;
    let Some((_, Entry { meta, kind: kind @ Kind::File(_), .. })) = tree.inode(&at) else {
        return Err(Error::build(format!("{from} is not a file")));
    };
    let meta = Meta { mtime: meta.mtime, ..Meta::root(0o644) };
    Ok(Entry { meta, kind: kind.clone(), origin: origin.clone() })
}

/// `debian` as `Debian`: the name GRUB shows.
fn distributor(name: &str) -> String {
    let mut chars = name.chars().filter(char::is_ascii_alphanumeric);
    match chars.next() {
        Some(first) => std::iter::once(first.to_ascii_uppercase()).chain(chars).collect(),
        None => "Linux".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newest_kernel_first() {
        let mut versions = ["6.1.0-9-amd64", "6.1.0-18-amd64", "6.1.0-18-rt-amd64", "5.10.0-99-amd64"];
        versions.sort_by(|a, b| compare_versions(b, a));
        assert_eq!(versions, ["6.1.0-18-rt-amd64", "6.1.0-18-amd64", "6.1.0-9-amd64", "5.10.0-99-amd64"]);
        assert_eq!(compare_versions("1.02", "1.2"), Ordering::Equal);
    }

    #[test]
    fn names_that_would_need_quoting_are_no_kernels() {
        let mut tree = Tree::new();
        let origin: Origin = "test".into();
        for name in ["vmlinuz-6.1", "initrd.img-6.1", "vmlinuz-x;reboot", "vmlinuz"] {
            let path = TreePath::new(format!("boot/{name}")).unwrap();
            tree.write_file(&path, "x", Meta::root(0o644), &origin).unwrap();
        }
        let found = kernels(&tree);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].initrd.as_deref(), Some("initrd.img-6.1"));
    }
}
