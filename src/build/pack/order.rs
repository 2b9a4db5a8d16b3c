//! What of a disk is the same in many images, and what is made for one: images that differ little should begin alike.
//!
//! Owns: [`arrange`]. It decides the bytes of a qcow2 (`DiskImage::steady_first`), so it follows from the Tree alone.

use std::collections::BTreeSet;

use crate::build::initramfs;
use crate::build::rootfs::SCRIPT_ORIGIN;
use crate::format::disk::DiskImage;
use crate::tree::{Content, Digest, Entry, Kind, Tree};

/// Larger files are not settings.
const SMALL: u64 = 1 << 20;

/// Tells the disk which contents are made last, and which are settings: small files that no package has.
pub fn arrange<'a>(disk: &mut DiskImage, trees: impl Iterator<Item = &'a Tree> + Clone) {
    let entries = || trees.clone().flat_map(Tree::iter).map(|(_, entry)| entry);
    let of = |wanted: &dyn Fn(&Entry, &Content) -> bool| -> BTreeSet<Digest> {
        let digest = |entry: &Entry| match &entry.kind {
            Kind::File(content) if wanted(entry, content) => Some(content.digest()),
            _ => None,
        };
        entries().filter_map(digest).collect()
    };
    let last = of(&|entry, _| initramfs::is_origin(&entry.origin));
    let installed = of(&|entry, _| is_installed(entry));
    let settings =
        of(&|entry, content| !is_installed(entry) && !initramfs::is_origin(&entry.origin) && content.size() < SMALL);
    disk.made_last(last);
    disk.made_for_it(settings.difference(&installed).copied());
}

fn is_installed(entry: &Entry) -> bool {
    entry.origin.starts_with("package ") || *entry.origin == *SCRIPT_ORIGIN
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::disk::Extent;
    use crate::tree::{Meta, TreePath};

    #[test]
    fn what_is_made_for_an_image_comes_behind_what_packages_have() {
        let script = SCRIPT_ORIGIN;
        let version = initramfs::origin("6.1");
        // By their place on the disk, a block each.
        let files: [(&str, &str, usize); 9] = [
            ("EFI/BOOT/BOOTX64.EFI", "EFI system partition (storage)", 100),
            ("usr/bin/a", "package a", 200),
            ("boot/initrd.img-6.1", &version, 300),
            ("usr/lib/grub/ext2.mod", "package grub", 400),
            ("usr/lib/a.pyc", script, 500),
            ("etc/hostname", "site.yaml:3:4", 600),
            ("boot/grub/ext2.mod", "boot loader (storage, kernel)", 400),
            ("opt/large", "site.yaml:9:4", SMALL as usize),
            ("usr/bin/b", "package b", 700),
        ];
        let block = 2 * SMALL;
        let mut trees = [Tree::new(), Tree::new()];
        let mut extents = Vec::new();
        for (number, (path, origin, size)) in files.into_iter().enumerate() {
            let content = Content::inline(vec![1; size]);
            extents.push(Extent::content(number as u64 * block, content.clone()));
            let entry = Entry { meta: Meta::root(0o644), kind: Kind::File(content), origin: origin.into() };
            trees[usize::from(path.starts_with("EFI"))].put(&TreePath::literal(path), entry).unwrap();
        }
        let mut disk = DiskImage::new(100 * block, extents).unwrap();
        arrange(&mut disk, trees.iter());
        let (order, steady) = disk.steady_first(block);
        // The last of the files that many images have is left out, as ever.
        assert_eq!((&order[..steady], &order[steady..]), (&[1, 3, 4, 6, 7][..], &[2, 0, 5, 8][..]));
    }
}
