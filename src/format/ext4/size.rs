//! How large a file system must be for a Tree, without placing anything; pure.
//!
//! What a Tree asks for depends a little on the size itself: more block groups have more metadata and cut files in more
//! places, the journal grows in steps, and inodes come by the size. So this looks for a size at which [`layout`] says
//! yes and says no to one block less.

use super::Options;
use super::alloc::Space;
use super::format::{BLOCK, FIRST_INODE, checksum_seed};
use super::geometry::Geometry;
use super::layout::{content_blocks, drafts, made_lost_found, reserved, tree_room};
use crate::error::{Kind as ErrorKind, Result};
use crate::format::nodes::nodes;
use crate::interrupt;
use crate::tree::{Content, Kind, Tree};

/// The smallest size in bytes, a multiple of 4096 and not below `options.size`, at which the file system can be made.
pub fn required(tree: &Tree, options: &Options) -> Result<u64> {
    let made = made_lost_found(options);
    let nodes = nodes(tree, Some(&made))?;
    // Any geometry does: what depends on it is computed again for each size.
    let large = Geometry::new(&Options { size: options.size.max(1 << 30), ..options.clone() })?;
    let drafts = drafts(&nodes, &Space::new(&large), checksum_seed(&options.uuid), options)?;
    let files = nodes.iter().filter_map(|node| match node.kind {
        Kind::File(content) => Some(content),
        _ => None,
    });
    let demand = Demand {
        inodes: u64::from(FIRST_INODE) + drafts.iter().map(|draft| draft.inodes).sum::<u64>(),
        meta: drafts.iter().map(|draft| draft.meta).sum(),
        files: files.collect(),
        options,
    };
    demand.smallest(options.size.div_ceil(BLOCK))
}

/// What has to go somewhere.
struct Demand<'a> {
    inodes: u64,
    meta: u64,
    files: Vec<&'a Content>,
    options: &'a Options,
}

impl Demand<'_> {
    fn smallest(&self, least: u64) -> Result<u64> {
        let mut blocks = least;
        while let Some(more) = self.shortage(blocks)? {
            interrupt::check()?;
            blocks += more;
        }
        // Estimates go by the metadata of a smaller size, which is nearly always the last word.
        while blocks > least && self.shortage(blocks - 1)?.is_none() {
            interrupt::check()?;
            blocks -= 1;
        }
        Ok(blocks * BLOCK)
    }

    /// Blocks that a size lacks, at least one; `None` if it fits.
    fn shortage(&self, blocks: u64) -> Result<Option<u64>> {
        let options = Options { size: blocks * BLOCK, ..self.options.clone() };
        let geometry = match Geometry::new(&options) {
            Ok(geometry) => geometry,
            Err(error) if error.kind() == ErrorKind::Space => return Ok(Some(1)),
            Err(error) => return Err(error),
        };
        if self.inodes > geometry.inodes() {
            // Each group may have rounded up by fewer inodes than a block holds; come closer from below.
            let slack = 16 * (geometry.groups + 1);
            let missing = (self.inodes - geometry.inodes()).saturating_sub(slack);
            return Ok(Some((missing * options.bytes_per_inode.max(1024) / BLOCK).max(1)));
        }
        let space = Space::new(&geometry);
        let data: u64 = self.files.iter().map(|content| content_blocks(content) + tree_room(content, &space)).sum();
        let asked = reserved(&geometry, &space).1 + self.meta + data;
        // What the last group is too small to use is not part of the geometry.
        let unused = blocks - geometry.blocks;
        Ok(asked
            .checked_sub(space.total)
            .filter(|lacking| *lacking > 0)
            .map(|lacking| lacking.saturating_sub(unused).max(1)))
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::super::layout;
    use super::*;
    use crate::format::ext4::Features;
    use crate::tree::{Meta, Mtime, Origin, TreePath};

    fn options(size: u64) -> Options {
        Options {
            size,
            uuid: Uuid::from_u128(1),
            hash_seed: Uuid::from_u128(2),
            label: String::new(),
            time: Mtime::default(),
            bytes_per_inode: 16384,
            inodes: None,
            reserved_percent: 5,
            features: Features::default(),
        }
    }

    fn tree(files: impl IntoIterator<Item = (String, Vec<u8>)>) -> Tree {
        let origin: Origin = "test".into();
        let mut tree = Tree::new();
        for (name, bytes) in files {
            tree.write_file(&TreePath::new(name).unwrap(), bytes, Meta::root(0o644), &origin).unwrap();
        }
        tree
    }

    /// The size that was computed works, one block less is refused.
    #[track_caller]
    fn exact(tree: &Tree) -> u64 {
        let size = required(tree, &options(0)).unwrap();
        assert!(layout(tree, &options(size)).is_ok(), "{size} bytes are too few");
        let error = layout(tree, &options(size - BLOCK)).err().unwrap_or_else(|| panic!("{size} bytes are too many"));
        assert_eq!(error.kind(), ErrorKind::Space, "{error}");
        size
    }

    #[test]
    fn an_empty_one_is_as_small_as_they_get() {
        assert_eq!(exact(&Tree::new()), 2048 * BLOCK);
    }

    #[test]
    fn by_content() {
        for mebibytes in [3, 5, 123, 127, 300] {
            let size = exact(&tree([("a/b".to_owned(), vec![7; mebibytes << 20])]));
            assert!(size > (mebibytes as u64) << 20);
        }
    }

    #[test]
    fn by_inodes_and_folders() {
        exact(&tree((0..600).map(|number| (format!("d/{number}"), Vec::new()))));
        let size = exact(&tree((0..9000).map(|number| (format!("d{}/{number}", number % 100), vec![1; 100]))));
        // 9000 files, 100 folders and eleven inodes of its own, up to fifteen of them for nothing in each of five groups.
        assert!(size >= (9111 - 5 * 15) * 16384, "{size}");
    }

    #[test]
    fn not_below_what_is_there_already() {
        let small = Tree::new();
        assert_eq!(required(&small, &options(100 << 20)).unwrap(), 100 << 20);
        assert!(layout(&small, &options(100 << 20)).is_ok());
    }

    /// The journal grows at 128 MiB: what fits just below does not fit just above.
    #[test]
    fn around_a_step_of_the_journal() {
        let tree = tree([("x".to_owned(), vec![1; 118 << 20])]);
        let below = required(&tree, &options(0)).unwrap();
        assert!(below < 128 << 20, "{below}");
        assert!(layout(&tree, &options(128 << 20)).is_err());
        let above = required(&tree, &options(128 << 20)).unwrap();
        assert!(above > 128 << 20 && layout(&tree, &options(above)).is_ok());
        assert!(layout(&tree, &options(above - BLOCK)).is_err());
    }

    #[test]
    fn many_kinds_of_sizes() {
        for seed in 1..20u64 {
            let length = |number: u64| (seed * 7919 + number * 104_729) % (50 * seed + number * 900) * 10;
            let file = |number: u64| (format!("{}/{number}", number % (seed + 1)), vec![3; length(number) as usize]);
            exact(&tree((1..40 * seed).map(file)));
        }
    }
}
