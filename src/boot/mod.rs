//! How an image starts: the disk's layout, fstab, GRUB, the kernel command line, the Secure Boot chain.
//!
//! Owns: [`layout`] (`storage` as numbers), [`configure`] (the pure edit of the Tree that makes it boot), [`live`] and GRUB's
//! images outside of file systems. May use: the sandbox (grub-mkimage), the Tree, the typed parameters.

pub mod command_line;
pub mod fstab;
pub mod grub;
pub mod layout;
pub mod live;

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::params::kernel::Argument;
    use crate::api::params::storage::Storage;
    use crate::error::Kind;

    /// The files of the packages that matter here, each holding its own path.
    fn packages(files: &[&str]) -> Tree {
        let origin: Origin = "test".into();
        let mut tree = Tree::new();
        for file in files {
            tree.write_file(&TreePath::new(file).unwrap(), *file, Meta::root(0o644), &origin).unwrap();
        }
        tree
    }

    const COMMON: &[&str] = &[
        "boot/vmlinuz-6.1",
        "boot/initrd.img-6.1",
        "etc/kernel/postinst.d/zz-update-grub",
        "usr/lib/grub/i386-pc/kernel.img",
        "usr/lib/grub/i386-pc/boot.img",
        "usr/lib/grub/i386-pc/normal.mod",
        "usr/lib/grub/i386-pc/moddep.lst",
        "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed",
    ];
    const DEBIAN: &[&str] = &[
        "usr/lib/shim/shimx64.efi",
        "usr/lib/shim/shimx64.efi.signed",
        "usr/lib/shim/mmx64.efi",
        "usr/lib/shim/mmx64.efi.signed",
        "usr/lib/shim/fbx64.efi.signed",
        "usr/lib/shim/BOOTX64.CSV",
    ];

    fn params(name: &str) -> Params {
        let mut params = Params::default();
        params.distribution.name = name.into();
        params.kernel.command_line = vec![Argument { name: "console".into(), value: Some("ttyS0".into()) }];
        params
    }

    fn layout() -> Layout {
        Layout::new(&Storage::default(), &Identity { site: "s".into(), image: "i".into() }).unwrap()
    }

    fn text(tree: &Tree, path: &str) -> String {
        let bytes = tree.read_file(&TreePath::new(path).unwrap()).unwrap();
        String::from_utf8(bytes.unwrap_or_else(|| panic!("{path} is missing"))).unwrap()
    }

    #[test]
    fn debian_signed_chain_at_both_paths() {
        let mut tree = packages(&[COMMON, DEBIAN].concat());
        configure(&mut tree, &params("debian"), &layout(), Mtime::default()).unwrap();
        let shim = "usr/lib/shim/shimx64.efi.signed";
        assert_eq!(text(&tree, "boot/efi/EFI/BOOT/BOOTX64.EFI"), shim);
        assert_eq!(text(&tree, "boot/efi/EFI/debian/shimx64.efi"), shim);
        for folder in ["BOOT", "debian"] {
            let path = |name: &str| format!("boot/efi/EFI/{folder}/{name}");
            assert!(text(&tree, &path("grubx64.efi")).ends_with("grubx64.efi.signed"));
            assert_eq!(text(&tree, &path("mmx64.efi")), "usr/lib/shim/mmx64.efi.signed");
            let boot = layout().locate(&TreePath::literal("boot")).unwrap().0.uuid_text();
            let stub = format!("search.fs_uuid {boot} root\nset prefix=($root)'/grub'\nconfigfile $prefix/grub.cfg\n");
            assert_eq!(text(&tree, &path("grub.cfg")), stub);
        }
        assert!(tree.contains(&TreePath::literal("boot/efi/EFI/debian/fbx64.efi")));
        assert!(!tree.contains(&TreePath::literal("boot/efi/EFI/BOOT/fbx64.efi")), "shim would run it");
    }

    #[test]
    fn ubuntu_keeps_its_shim_behind_an_alternative() {
        let mut tree =
            packages(&[COMMON, &["usr/lib/shim/shimx64.efi.signed.latest", "usr/lib/shim/mmx64.efi"]].concat());
        let origin: Origin = "test".into();
        for (path, target) in [
            ("usr/lib/shim/shimx64.efi.signed", "/etc/alternatives/shimx64.efi.signed"),
            ("etc/alternatives/shimx64.efi.signed", "/usr/lib/shim/shimx64.efi.signed.latest"),
        ] {
            tree.write_symlink(&TreePath::new(path).unwrap(), target, Mtime::default(), &origin).unwrap();
        }
        configure(&mut tree, &params("ubuntu"), &layout(), Mtime::default()).unwrap();
        assert_eq!(text(&tree, "boot/efi/EFI/BOOT/BOOTX64.EFI"), "usr/lib/shim/shimx64.efi.signed.latest");
        assert_eq!(text(&tree, "boot/efi/EFI/ubuntu/mmx64.efi"), "usr/lib/shim/mmx64.efi");
        assert!(text(&tree, "boot/grub/grub.cfg").contains("menuentry 'Ubuntu' --class ubuntu"));
    }

    #[test]
    fn configuring_twice_changes_nothing() {
        let mut tree = packages(&[COMMON, DEBIAN].concat());
        configure(&mut tree, &params("debian"), &layout(), Mtime::default()).unwrap();
        let once = tree.digest();
        configure(&mut tree, &params("debian"), &layout(), Mtime::default()).unwrap();
        assert_eq!(tree.digest(), once);
        for path in ["boot/grub/i386-pc/normal.mod", "boot/grub/i386-pc/moddep.lst", "etc/fstab", "etc/default/grub"] {
            assert!(tree.contains(&TreePath::new(path).unwrap()), "{path}");
        }
        assert_eq!(text(&tree, "boot/grub/grubenv").len(), 1024);
    }

    #[test]
    fn says_which_package_is_missing() {
        let fails = |files: &[&str]| {
            configure(&mut packages(files), &params("debian"), &layout(), Mtime::default()).unwrap_err()
        };
        let no_kernel = fails(&[&COMMON[2..], DEBIAN].concat());
        assert!(no_kernel.to_string().contains("no kernel"), "{no_kernel}");
        let no_bios = fails(&[&COMMON[..3], DEBIAN].concat());
        assert!(no_bios.to_string().contains("`grub-pc-bin` is not installed"), "{no_bios}");
        let no_efi = fails(COMMON);
        assert!(no_efi.to_string().contains("`grub-efi-amd64-bin` is not installed"), "{no_efi}");
        assert_eq!(no_efi.kind(), Kind::Documents);
    }
}
