//! The live system: what a Tree needs to run from a medium that nobody writes to, and the medium around it.
//!
//! Owns: [`configure`] (the pure edit of the Tree), [`Medium`] (the files beside the squashfs, and those of the EFI system
//! partition). The initramfs of live-boot(7) finds the medium by `/live/filesystem.squashfs`, mounts it at
//! `/run/live/medium` and lays a file system in memory over the squashfs.

use uuid::Uuid;

use super::command_line::{for_grub, words};
use super::grub::efi::SignedChain;
use super::grub::{self, Platform, efi, menu};
use crate::api::Params;
use crate::api::params::kernel::Argument;
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::tree::{Entry, Kind, Meta, Mtime, Origin, Tree, TreePath};

/// Where live-boot mounts the medium.
const MEDIUM: &str = "/run/live/medium";
/// Where cloud-init's ConfigDrive looks before it looks at any disk.
const SEED: &str = "var/lib/cloud/seed/config_drive";
/// Where the squashfs lies on the medium.
pub const SQUASHFS: &str = "live/filesystem.squashfs";
pub const KERNEL: &str = "boot/vmlinuz";
pub const INITRD: &str = "boot/initrd.img";
/// Says what the medium is, as upstream's does.
pub const MARKER: &str = "AIRSHIP";

/// As upstream's live system starts, but for `systemd.unified_cgroup_hierarchy=0`, which newer releases of systemd
/// refuse.
const COMMAND_LINE: [(&str, Option<&str>); 5] = [
    ("boot", Some("live")),
    ("quiet", None),
    ("nomodeset", None),
    ("overlay-size", Some("70%")),
    ("ds", Some("ConfigDrive")),
];
/// Where the documents name no console.
const CONSOLES: [&str; 2] = ["ttyS0", "tty0"];

/// Makes the Tree one that runs from a medium. Runs in place of [`super::configure`].
pub fn configure(tree: &mut Tree, mtime: Mtime) -> Result<()> {
    let scripts = TreePath::literal("usr/share/initramfs-tools/scripts/live");
    let scripts = tree.resolve(&scripts)?;
    if !tree.contains(&scripts) {
        return Err(Error::new(ErrorKind::Documents, "the image of an ISO needs `live-boot`, which is not installed")
            .hint("add the component `functions/images/ephemeral`, or `live-boot` and `live-boot-initramfs-tools` to `software.packages`"));
    }
    // The medium that was started from is the config drive. A search by label could find another one first: that of an
    // earlier deployment, on a disk of the node.
    let origin: Origin = "live system".into();
    tree.write_symlink(&TreePath::literal(SEED), MEDIUM, mtime, &origin)?;
    Ok(())
}

/// The Tree without what lies on the medium itself, and without access lists, which no squashfs has (mksquashfs leaves
/// them out as well): see [`access_lists`].
pub fn root_file_system(tree: &Tree) -> Tree {
    let mut root = tree.clone();
    for (_, entry) in root.iter_mut().filter(|(_, entry)| !entry.meta.xattrs.is_empty()) {
        entry.meta.xattrs.retain(|name, _| !is_access_list(name));
    }
    for folder in [TreePath::literal("boot"), TreePath::literal("live")] {
        let inside: Vec<TreePath> = tree.below(&folder).map(|(path, _)| path.clone()).collect();
        for path in inside {
            root.remove_raw(&path);
        }
    }
    root
}

fn is_access_list(xattr: &[u8]) -> bool {
    xattr.starts_with(b"system.posix_acl_")
}

/// What a live system lacks: paths whose access lists get lost. Not those of the journal, which systemd-tmpfiles sets at
/// every start.
pub fn access_lists(tree: &Tree) -> Vec<&TreePath> {
    let (journal, boot) = (TreePath::literal("var/log/journal"), TreePath::literal("boot"));
    let lost = |path: &TreePath| *path != journal && !path.is_below(&journal) && !path.is_below(&boot);
    let with = tree.iter().filter(|(_, entry)| entry.meta.xattrs.keys().any(|name| is_access_list(name)));
    with.map(|(path, _)| path).filter(|path| lost(path)).collect()
}

/// The kernel command line of a live system, word by word.
pub fn command_line(params: &Params) -> Result<Vec<String>> {
    let argument =
        |(name, value): (&str, Option<&str>)| Argument { name: name.to_owned(), value: value.map(Into::into) };
    let mut arguments: Vec<Argument> = COMMAND_LINE.into_iter().map(argument).collect();
    if !params.kernel.command_line.iter().any(|argument| argument.name == "console") {
        arguments.extend(CONSOLES.map(|console| argument(("console", Some(console)))));
    }
    arguments.extend(params.kernel.command_line.iter().cloned());
    words(&arguments)
}

/// The files around a squashfs.
pub struct Medium {
    /// Everything on the medium but the squashfs, the boot images and the seed.
    pub files: Tree,
    /// On the EFI system partition; without a loader where the distribution has no signed one.
    pub esp: Tree,
    pub signed: bool,
}

impl Medium {
    /// `id` tells this medium from others that a node may have: the boot loader looks for it.
    pub fn new(tree: &Tree, params: &Params, id: Uuid, mtime: Mtime) -> Result<Medium> {
        let origin: Origin = "boot loader (kernel)".into();
        let meta = Meta { mtime, ..Meta::root(0o644) };
        let mut files = Tree::new();
        if let Some(root) = files.get_mut(&TreePath::root()) {
            root.meta.mtime = mtime;
        }
        copy_kernel(tree, &mut files, mtime, &origin)?;
        let marker = format!("{}\n", params.distribution.release);
        files.write_file(&TreePath::literal(MARKER), marker, meta.clone(), &origin)?;
        let id_path = format!(".disk/id/{id}");
        let path = TreePath::new(&id_path).ok_or_else(|| Error::build("an id is no path"))?;
        files.write_file(&path, "", meta.clone(), &origin)?;
        files.write_file(&TreePath::literal("boot/grub/grub.cfg"), menu_text(params)?, meta.clone(), &origin)?;
        for (path, entry) in grub::platform_files(tree, Platform::Bios, &origin)? {
            files.put(&path, entry)?;
        }

        let mut esp = Tree::new();
        let chain = SignedChain::find(tree)?;
        let vendor = efi::vendor(params)?;
        if let Some(chain) = &chain {
            chain.copy_to(tree, &vendor, &mut esp, &origin)?;
        }
        let stub = format!(
            "search --no-floppy --file --set=root /{id_path}\nset prefix=($root)/boot/grub\nconfigfile $prefix/grub.cfg\n"
        );
        for folder in ["BOOT", &vendor] {
            let path = TreePath::new(format!("EFI/{folder}/grub.cfg"));
            let path = path.ok_or_else(|| Error::build(format!("`{folder}` is no folder")))?;
            esp.write_file(&path, stub.as_str(), meta.clone(), &origin)?;
        }
        Ok(Medium { files, esp, signed: chain.is_some() })
    }
}

/// The newest kernel and its initramfs.
pub fn kernel(tree: &Tree) -> Result<(TreePath, TreePath)> {
    let kernels = grub::kernels(tree);
    let newest = kernels.first().ok_or_else(|| {
        Error::new(ErrorKind::Documents, "there is no kernel in /boot")
            .hint("add a kernel package to `software.packages`")
    })?;
    let initrd = newest.initrd.as_ref().ok_or_else(|| Error::build("the kernel has no initramfs"))?;
    let path = |name: &str| {
        let from = TreePath::new(format!("boot/{name}")).ok_or_else(|| Error::build("a kernel's name is no path"))?;
        tree.resolve(&from)
    };
    Ok((path(&newest.file)?, path(initrd)?))
}

fn copy_kernel(tree: &Tree, files: &mut Tree, mtime: Mtime, origin: &Origin) -> Result<()> {
    let (kernel, initrd) = kernel(tree)?;
    for (at, target) in [(kernel, KERNEL), (initrd, INITRD)] {
        let found = tree.inode(&at).map(|(_, entry)| &entry.kind);
        let Some(kind @ Kind::File(_)) = found else { return Err(Error::build(format!("{at} is not a file"))) };
        let meta = Meta { mtime, ..Meta::root(0o644) };
        files.put(&TreePath::literal(target), Entry { meta, kind: kind.clone(), origin: origin.clone() })?;
    }
    Ok(())
}

/// `grub.cfg` of the medium. `$root` is the medium: the core image and the stub see to that.
fn menu_text(params: &Params) -> Result<String> {
    let line = for_grub(&command_line(params)?);
    let timeout = params.kernel.grub.timeout;
    let mut out = String::from("# Written by imagebuilder from `kernel.grub` and `kernel.commandLine`.\n");
    match menu::serial(&params.kernel.grub.serial_command)? {
        Some(serial) => {
            out += &format!("{serial}\nterminal_input serial console\nterminal_output serial console\n");
        }
        None => out += "terminal_input console\nterminal_output console\n",
    }
    out += &format!("set default=0\nset timeout_style=menu\nset timeout={timeout}\n");
    out += "menuentry 'Airship ephemeral node' --id ephemeral {\n";
    out += &format!("\tlinux /{KERNEL} {line}\n\tinitrd /{INITRD}\n}}\n");
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[&str]) -> Tree {
        let mut tree = Tree::new();
        for file in files {
            let path = TreePath::new(file).unwrap();
            tree.write_file(&path, *file, Meta::root(0o644), &"test".into()).unwrap();
        }
        tree
    }

    const FILES: &[&str] = &[
        "boot/vmlinuz-6.1",
        "boot/initrd.img-6.1",
        "usr/share/initramfs-tools/scripts/live",
        "usr/lib/grub/i386-pc/kernel.img",
        "usr/lib/grub/i386-pc/normal.mod",
        "usr/lib/shim/shimx64.efi.signed",
        "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed",
    ];

    fn params() -> Params {
        let mut params = Params::default();
        params.distribution.name = "debian".into();
        params.kernel.command_line = vec![Argument { name: "intel_iommu".into(), value: Some("on".into()) }];
        params
    }

    #[test]
    fn the_command_line_is_upstreams_with_the_documents_own() {
        let mut params = params();
        let line = command_line(&params).unwrap().join(" ");
        assert_eq!(
            line,
            "boot=live quiet nomodeset overlay-size=70% ds=ConfigDrive console=ttyS0 console=tty0 intel_iommu=on"
        );
        params.kernel.command_line = vec![Argument { name: "console".into(), value: Some("ttyS1,9600".into()) }];
        assert!(command_line(&params).unwrap().join(" ").ends_with("ds=ConfigDrive console=ttyS1,9600"));
    }

    #[test]
    fn the_medium_has_what_boots() {
        let tree = tree(FILES);
        let id = Uuid::from_u128(7);
        let medium = Medium::new(&tree, &params(), id, Mtime::default()).unwrap();
        let text = |tree: &Tree, path: &str| {
            String::from_utf8(tree.read_file(&TreePath::new(path).unwrap()).unwrap().unwrap()).unwrap()
        };
        assert_eq!(text(&medium.files, KERNEL), "boot/vmlinuz-6.1");
        assert_eq!(text(&medium.files, INITRD), "boot/initrd.img-6.1");
        let menu = text(&medium.files, "boot/grub/grub.cfg");
        assert!(
            menu.contains("linux /boot/vmlinuz boot=live quiet nomodeset 'overlay-size=70%'")
                || menu.contains("overlay-size=70%"),
            "{menu}"
        );
        assert!(medium.files.contains(&TreePath::literal("boot/grub/i386-pc/normal.mod")));
        assert_eq!(text(&medium.esp, "EFI/BOOT/BOOTX64.EFI"), "usr/lib/shim/shimx64.efi.signed");
        let stub = text(&medium.esp, "EFI/debian/grub.cfg");
        assert!(stub.contains(&format!("/.disk/id/{id}")), "{stub}");
        assert!(medium.files.contains(&TreePath::new(format!(".disk/id/{id}")).unwrap()));
        assert!(medium.signed);
    }

    #[test]
    fn the_root_file_system_leaves_boot_out() {
        let root = root_file_system(&tree(FILES));
        assert!(root.contains(&TreePath::literal("boot")) && !root.contains(&TreePath::literal("boot/vmlinuz-6.1")));
        assert!(root.contains(&TreePath::literal("usr/lib/grub/i386-pc/normal.mod")));
    }

    #[test]
    fn lost_access_lists_are_known() {
        let mut tree = tree(&["var/log/journal/x", "srv/shared", "srv/plain"]);
        for path in ["var/log/journal/x", "var/log/journal", "srv/shared"] {
            let entry = tree.get_mut(&TreePath::literal(path)).unwrap();
            entry.meta.xattrs.insert(b"system.posix_acl_access".to_vec(), vec![2, 0, 0, 0]);
            entry.meta.xattrs.insert(b"user.kept".to_vec(), vec![1]);
        }
        assert_eq!(access_lists(&tree), [&TreePath::literal("srv/shared")]);
        let root = root_file_system(&tree);
        let xattrs = &root.get(&TreePath::literal("srv/shared")).unwrap().meta.xattrs;
        assert_eq!(xattrs.keys().map(Vec::as_slice).collect::<Vec<_>>(), [b"user.kept"]);
    }

    #[test]
    fn without_live_boot_it_is_no_live_system() {
        let error = configure(&mut tree(&FILES[..2]), Mtime::default()).unwrap_err();
        assert!(error.hints()[0].contains("functions/images/ephemeral"));
        let mut tree = tree(FILES);
        configure(&mut tree, Mtime::default()).unwrap();
        let link = tree.get(&TreePath::literal(SEED)).unwrap();
        assert_eq!(link.kind, Kind::Symlink(MEDIUM.into()));
    }
}
