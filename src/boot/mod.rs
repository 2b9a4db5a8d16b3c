//! How an image starts: the disk's layout, fstab, GRUB, the kernel command line, the Secure Boot chain.
//!
//! Owns: [`layout`] (`storage` as numbers), [`configure`] (the pure edit of the Tree that makes it boot) and GRUB's
//! images outside of file systems. May use: the sandbox (grub-mkimage), the Tree, the typed parameters.

pub mod command_line;
pub mod fstab;
pub mod grub;
pub mod layout;

pub use layout::{Identity, Layout};

use crate::api::params::Params;
use crate::error::{Context, Result};
use crate::tree::{Meta, Mtime, Origin, Tree, TreePath};

/// Everything in the Tree that booting needs: mount points, `/etc/fstab`, `/etc/default/grub`, `/boot/grub`, the files
/// of the EFI system partition. Runs after the packages (it needs the kernel and its initramfs in `/boot`) and before
/// seal; run again after a change it gives the same result.
pub fn configure(tree: &mut Tree, params: &Params, layout: &Layout, mtime: Mtime) -> Result<()> {
    let origin: Origin = "storage.partitions".into();
    for (_, mounted) in layout.mounts() {
        tree.make_directories(&mounted.at, mtime, &origin)?;
    }
    let meta = Meta { mtime, ..Meta::root(0o644) };
    tree.write_file(&TreePath::literal("etc/fstab"), fstab::render(layout), meta, &origin)?;
    grub::configure(tree, params, layout, mtime).context("configuring the boot loader")
}
