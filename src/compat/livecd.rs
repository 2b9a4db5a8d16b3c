//! `livecdcontent-vars.yaml`: the squashfs and the menu of the ISO.
//!
//! Owns: the meaning of each variable of upstream's role `livecdcontent`.

use super::overlay::Overlay;
use super::variables::{Table, ignored, sets, text};
use crate::document::{Key, Node};
use crate::error::Result;

pub(super) const TABLE: Table = &[
    sets(
        "mksquashfs_compression",
        "`spec.params.isobuilder.compression` of the ImageConfiguration; `zstd` without it",
        |overlay, _, value| builder(overlay, "compression", value),
    ),
    sets("mksquashfs_threads", "`spec.params.isobuilder.threads` of the ImageConfiguration", |overlay, _, value| {
        builder(overlay, "threads", value)
    }),
    sets("grub_menu_timeout", "`kernel.grub.GRUB_TIMEOUT`", timeout),
    ignored("root_chroot"),
    ignored("root_image"),
    ignored("img_output_dir"),
    // Ours does not hang.
    ignored("squashfs_timeout"),
];

fn builder(overlay: &mut Overlay, key: &'static str, value: &Node) -> Result<()> {
    text(value, "a word")?;
    overlay.set_iso_builder(key, value.clone());
    Ok(())
}

fn timeout(overlay: &mut Overlay, key: &Key, value: &Node) -> Result<()> {
    text(value, "seconds")?;
    overlay.set(&["kernel", "grub", "GRUB_TIMEOUT"], value.clone(), key);
    Ok(())
}
