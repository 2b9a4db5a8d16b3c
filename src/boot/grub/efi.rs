//! The EFI system partition: the distribution's signed chain (shim, GRUB), or room for a core image of our own.
//!
//! Owns: which file goes where. The firmware runs `/EFI/BOOT/BOOTX64.EFI` when it knows nothing better (UEFI
//! specification 2.10, 3.5.1.1); shim runs `grubx64.efi` beside itself; a signed GRUB reads `grub.cfg` from the folder
//! built into it, `/EFI/<distribution>`. `fbx64.efi` stays out of `/EFI/BOOT`: shim would run it there, write boot
//! entries into the node's firmware and restart.

use super::{Boot, copy_between, copy_file};
use crate::api::params::Params;
use crate::boot::layout::Layout;
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::tree::{Meta, Mtime, Origin, Tree, TreePath};

/// Where the removable path's loader lies on the ESP.
pub const REMOVABLE: &str = "EFI/BOOT/BOOTX64.EFI";

/// The files of a chain that Secure Boot accepts, as packages bring them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedChain {
    shim: TreePath,
    grub: TreePath,
    mok_manager: Option<TreePath>,
    fallback: Option<TreePath>,
    boot_csv: Option<TreePath>,
}

impl SignedChain {
    /// `None` when shim or a signed GRUB is not installed.
    pub fn find(tree: &Tree) -> Result<Option<SignedChain>> {
        // Debian signs every file beside the unsigned one; Ubuntu keeps the last two shims behind an alternative and
        // signs the helpers in place.
        let shim = first(tree, &["usr/lib/shim/shimx64.efi.signed", "usr/lib/shim/shimx64.efi.signed.latest"])?;
        let grub = first(tree, &["usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed"])?;
        let (Some(shim), Some(grub)) = (shim, grub) else { return Ok(None) };
        Ok(Some(SignedChain {
            shim,
            grub,
            mok_manager: first(tree, &["usr/lib/shim/mmx64.efi.signed", "usr/lib/shim/mmx64.efi"])?,
            fallback: first(tree, &["usr/lib/shim/fbx64.efi.signed", "usr/lib/shim/fbx64.efi"])?,
            boot_csv: first(tree, &["usr/lib/shim/BOOTX64.CSV"])?,
        }))
    }

    /// Puts the chain on an EFI system partition of its own.
    pub fn copy_to(&self, tree: &Tree, vendor: &str, esp: &mut Tree, origin: &Origin) -> Result<()> {
        for (target, source) in self.files(vendor) {
            let target = TreePath::new(&target).ok_or_else(|| Error::build(format!("{target} is not a path")))?;
            copy_between(tree, source, esp, &target, origin)?;
        }
        Ok(())
    }

    /// What lies on the ESP: target (below its root) and source.
    fn files(&self, vendor: &str) -> Vec<(String, &TreePath)> {
        let own = |name: &str| format!("EFI/{vendor}/{name}");
        let mut files = vec![
            (REMOVABLE.to_owned(), &self.shim),
            ("EFI/BOOT/grubx64.efi".to_owned(), &self.grub),
            (own("shimx64.efi"), &self.shim),
            (own("grubx64.efi"), &self.grub),
        ];
        if let Some(source) = &self.mok_manager {
            files.push(("EFI/BOOT/mmx64.efi".to_owned(), source));
            files.push((own("mmx64.efi"), source));
        }
        if let Some(source) = &self.fallback {
            files.push((own("fbx64.efi"), source));
        }
        if let Some(source) = &self.boot_csv {
            files.push((own("BOOTX64.CSV"), source));
        }
        files
    }
}

/// The first of the paths that leads to a file, and where it leads.
fn first(tree: &Tree, paths: &[&'static str]) -> Result<Option<TreePath>> {
    for path in paths {
        let at = tree.resolve(&TreePath::literal(path))?;
        if matches!(tree.inode(&at), Some((_, entry)) if matches!(entry.kind, crate::tree::Kind::File(_))) {
            return Ok(Some(at));
        }
    }
    Ok(None)
}

/// The distribution's folder on the ESP.
pub fn vendor(params: &Params) -> Result<String> {
    let name = &params.distribution.name;
    if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric()) || name.eq_ignore_ascii_case("boot") {
        return Err(Error::new(
            ErrorKind::Documents,
            format!("`distribution.name: {name}` gives no folder for the EFI system partition"),
        ));
    }
    Ok(name.clone())
}

/// The mount point of the ESP.
pub fn mount_point(layout: &Layout) -> Option<&TreePath> {
    layout.esp().and_then(|esp| esp.mounted.as_ref()).map(|mounted| &mounted.at)
}

pub(super) fn configure(tree: &mut Tree, params: &Params, layout: &Layout, boot: &Boot, mtime: Mtime) -> Result<()> {
    let Some(esp) = mount_point(layout).cloned() else { return Ok(()) };
    let vendor = vendor(params)?;
    let origin: Origin = "EFI system partition (storage)".into();
    let on_esp = |path: &str| {
        TreePath::new(path).map(|path| esp.append(&path)).ok_or_else(|| Error::build(format!("{path} is not a path")))
    };
    if let Some(chain) = SignedChain::find(tree)? {
        for (target, source) in chain.files(&vendor) {
            copy_file(tree, source, &on_esp(&target)?, &origin)?;
        }
    }
    // Also beside the removable loader: newer GRUBs look there first.
    let config = boot.prefix_config() + "configfile $prefix/grub.cfg\n";
    for folder in ["BOOT", &vendor] {
        let meta = Meta { mtime, ..Meta::root(0o644) };
        tree.write_file(&on_esp(&format!("EFI/{folder}/grub.cfg"))?, config.as_str(), meta, &origin)?;
    }
    Ok(())
}
