//! `qcow-vars.yaml`: the disk and the image file.
//!
//! Owns: the meaning of each variable of upstream's role `qcow`.

use super::overlay::Overlay;
use super::variables::{Table, ignored, list, sets, text};
use crate::document::{Key, Node};
use crate::error::Result;

pub(super) const TABLE: Table = &[
    sets("qcow_capacity", "`storage.qcow_capacity`", qcow_capacity),
    sets("partitions", "`storage.partitions`, replaced", partitions),
    sets("qcow_compress", "`spec.params.qcowbuilder.qcow_compress` of the ImageConfiguration", qcow_compress),
    sets("img_name", "`spec.image.outputFileName` of the ImageConfiguration", img_name),
    ignored("src"),
    ignored("dst"),
    ignored("nbd_build_dir"),
    ignored("img_output_dir"),
    // Declared by upstream, never run by it.
    ignored("qcow_container_runtime_scripts"),
];

fn qcow_capacity(overlay: &mut Overlay, key: &Key, value: &Node) -> Result<()> {
    text(value, "a size")?;
    overlay.set(&["storage", "qcow_capacity"], value.clone(), key);
    Ok(())
}

/// The entries have the shape of ours; the typed decoding checks them where they stand.
fn partitions(overlay: &mut Overlay, key: &Key, value: &Node) -> Result<()> {
    list(value, "partitions")?;
    overlay.set(&["storage", "partitions"], value.clone(), key);
    Ok(())
}

fn qcow_compress(overlay: &mut Overlay, _: &Key, value: &Node) -> Result<()> {
    text(value, "true or false")?;
    overlay.set_qcow_compress(value.clone());
    Ok(())
}

fn img_name(overlay: &mut Overlay, _: &Key, value: &Node) -> Result<()> {
    text(value, "a file name")?;
    overlay.set_output_file_name(value.clone());
    Ok(())
}
