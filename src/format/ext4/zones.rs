//! Where everything goes, so that a small edit moves little: zones with slack; pure.
//!
//! Inode numbers, blocks of metadata and blocks of data are three rows. In each of them a folder with all below it is a
//! zone: first the folder itself, then its files in bins, then the zones of its folders, by name. Files, bins and zones
//! are rounded up, the larger the more. What grows by a little uses up slack and moves what follows only inside the
//! smallest zone that has some. The borders of bins depend on names alone, so a new file changes one bin.

use super::hash::half_md4;
use super::nodes::Node;

/// A folder by its parts; numbers are places in the list of nodes.
struct Folder {
    node: usize,
    bins: Vec<Vec<usize>>,
    folders: Vec<usize>,
}

/// The folders of a file system, parents first.
pub struct Zones {
    folders: Vec<Folder>,
}

/// Where each node begins in a row, and the length of the row.
pub struct Row {
    pub starts: Vec<u64>,
    pub length: u64,
}

/// One of so many names ends a bin.
const BIN: u32 = 16;

impl Zones {
    /// `nodes` has parents before their children.
    pub fn new(nodes: &[Node<'_>]) -> Zones {
        let mut folders = Vec::new();
        for (node, about) in nodes.iter().enumerate().filter(|(_, node)| node.is_folder()) {
            let (mut bins, mut below, mut bin) = (Vec::new(), Vec::new(), Vec::new());
            for &(name, child) in &about.entries {
                let inode = &nodes[child];
                if inode.is_folder() {
                    below.push(child);
                } else if inode.parent == node && inode.path.file_name() == name {
                    // Other names of a file do not move it.
                    bin.push(child);
                    if (half_md4(name, &[0; 16]).0 >> 1) % BIN == 0 {
                        bins.push(std::mem::take(&mut bin));
                    }
                }
            }
            bins.extend((!bin.is_empty()).then_some(bin));
            folders.push(Folder { node, bins, folders: below });
        }
        Zones { folders }
    }

    /// Spreads nodes of the given sizes over a row. `slack` is the power of two of the parts, of which up to one is
    /// added to a zone; `None` packs without gaps.
    pub fn spread(&self, sizes: &[u64], slack: Option<u32>) -> Row {
        let bin_size = |bin: &[usize]| padded(bin.iter().map(|node| padded(sizes[*node], slack)).sum(), slack);
        // Of folders: with all below them.
        let mut zones = vec![0; sizes.len()];
        for folder in self.folders.iter().rev() {
            let files: u64 = folder.bins.iter().map(|bin| bin_size(bin)).sum();
            let folders: u64 = folder.folders.iter().map(|node| zones[*node]).sum();
            zones[folder.node] = padded(sizes[folder.node] + files + folders, slack);
        }
        let mut starts = vec![0; sizes.len()];
        for folder in &self.folders {
            let mut at = starts[folder.node] + sizes[folder.node];
            for bin in &folder.bins {
                let mut inside = at;
                for node in bin {
                    starts[*node] = inside;
                    inside += padded(sizes[*node], slack);
                }
                at += bin_size(bin);
            }
            for node in &folder.folders {
                starts[*node] = at;
                at += zones[*node];
            }
        }
        Row { starts, length: self.folders.first().map_or(0, |root| zones[root.node]) }
    }

    /// As [`Zones::spread`], with as much slack as a row of `room` allows: from `slack` on less and less.
    pub fn fit(&self, sizes: &[u64], slack: u32, room: u64) -> Row {
        let tries = (slack..slack + 5).map(Some);
        let mut rows = tries.map(|slack| self.spread(sizes, slack));
        rows.find(|row| row.length <= room).unwrap_or_else(|| self.spread(sizes, None))
    }
}

/// Rounded up to a multiple of its 2^`slack`-th part, which is a power of two.
fn padded(size: u64, slack: Option<u32>) -> u64 {
    match slack {
        Some(slack) if size > 0 => size.next_multiple_of(1 << size.ilog2().saturating_sub(slack)),
        _ => size,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slack_grows_with_the_size() {
        assert_eq!([0, 1, 15, 17, 33, 1000].map(|size| padded(size, Some(3))), [0, 1, 15, 18, 36, 1024]);
        assert_eq!(padded(1000, None), 1000);
    }
}
