//! Where everything goes, so that a small edit moves little: zones with slack; pure.
//!
//! Inode numbers, blocks of metadata and blocks of data are three rows. In each of them a folder with all below it is a
//! zone: the folder itself and what is in it, the larger things first, those of about one size by name. Long lists of
//! names are zones inside zones, about four to one, with borders that depend on names alone. A zone is rounded up, the
//! larger the more, so what grows uses up slack and moves only what follows in the smallest zone that has enough of it,
//! which is nothing much larger than itself.

use super::hash::half_md4;
use crate::format::nodes::Node;

#[derive(Debug, Clone, Copy)]
enum Part {
    /// A place in the list of nodes.
    Node(usize),
    /// A place in the list of zones, behind that of the zone around it.
    Zone(usize),
}

/// The zones of a file system, outer ones first.
pub struct Zones {
    zones: Vec<Vec<Part>>,
}

/// Where each node begins in a row, and the length of the row.
pub struct Row {
    pub starts: Vec<u64>,
    pub length: u64,
}

/// Zones of this size and less have a quarter of the slack: together they are many.
const SMALL: u64 = 256;
/// Fewer parts are not divided further.
const FEW: usize = 4;
/// One of 4^level names ends a zone of that level.
const LEVELS: u32 = 8;

/// What a zone is to be made of.
enum Task {
    Folder(usize),
    /// Some of what is in a folder, with the hashes of the names, and the level of the borders inside.
    Names(Vec<(u32, usize)>, u32),
}

/// Zones, and those that are still empty.
struct Builder<'n> {
    nodes: &'n [Node<'n>],
    zones: Vec<Vec<Part>>,
    todo: Vec<(usize, Task)>,
}

impl Builder<'_> {
    fn zone(&mut self, task: Task) -> Part {
        self.zones.push(Vec::new());
        let place = self.zones.len() - 1;
        self.todo.push((place, task));
        Part::Zone(place)
    }

    fn node(&mut self, node: usize) -> Part {
        if self.nodes[node].is_folder() { self.zone(Task::Folder(node)) } else { Part::Node(node) }
    }

    /// What a folder holds; other names of a file do not move it.
    fn names(&self, folder: usize) -> Vec<(u32, usize)> {
        let own = |(name, node): &&(&[u8], usize)| {
            self.nodes[*node].parent == folder && self.nodes[*node].path.file_name() == *name
        };
        let entries = self.nodes[folder].entries.iter().filter(own);
        entries.map(|(name, node)| (half_md4(name, &[0; 16]).0 >> 1, *node)).collect()
    }

    fn fill(&mut self, task: Task) -> Vec<Part> {
        let (own, names, mut level) = match task {
            Task::Folder(node) => (Some(Part::Node(node)), self.names(node), LEVELS),
            Task::Names(names, level) => (None, names, level),
        };
        let mut parts: Vec<Part> = own.into_iter().collect();
        // The highest level that has a border here.
        while level > 0 && !names.iter().any(|(hash, _)| ends(*hash, level)) {
            level -= 1;
        }
        if level == 0 || names.len() <= FEW {
            parts.extend(names.into_iter().map(|(_, node)| self.node(node)));
            return parts;
        }
        for piece in names.split_inclusive(|(hash, _)| ends(*hash, level)) {
            parts.push(match piece {
                [(_, node)] => self.node(*node),
                _ => self.zone(Task::Names(piece.to_vec(), level - 1)),
            });
        }
        parts
    }
}

fn ends(hash: u32, level: u32) -> bool {
    hash % (1 << (2 * level)) == 0
}

impl Zones {
    /// `nodes` begins with the root.
    pub fn new(nodes: &[Node<'_>]) -> Zones {
        let mut builder = Builder { nodes, zones: Vec::new(), todo: Vec::new() };
        builder.zone(Task::Folder(0));
        while let Some((place, task)) = builder.todo.pop() {
            builder.zones[place] = builder.fill(task);
        }
        Zones { zones: builder.zones }
    }

    /// Spreads nodes of the given sizes over a row. `slack` is the power of two of the parts, of which up to one is
    /// added to a zone; `None` packs without gaps.
    pub fn spread(&self, sizes: &[u64], slack: Option<u32>) -> Row {
        let mut zones = vec![0; self.zones.len()];
        let size = |part: &Part, zones: &[u64]| match part {
            Part::Node(node) => padded(sizes[*node], slack),
            Part::Zone(zone) => zones[*zone],
        };
        for (place, parts) in self.zones.iter().enumerate().rev() {
            let sizes = || parts.iter().map(|part| size(part, &zones));
            let sum = sizes().fold(0, u64::saturating_add);
            // A part that is nearly all of the zone has slack enough; else slack would pile up in deep folders.
            let largest = sizes().max().unwrap_or(0);
            zones[place] = if largest < sum - sum / 8 { padded(sum, slack) } else { sum };
        }
        let mut starts = vec![0; sizes.len()];
        let mut zone_starts = vec![0; self.zones.len()];
        for (place, parts) in self.zones.iter().enumerate() {
            let mut at: u64 = zone_starts[place];
            // What grows out of its slack must not move anything much larger.
            let mut ordered: Vec<(&Part, u64)> = parts.iter().map(|part| (part, size(part, &zones))).collect();
            ordered.sort_by_key(|(_, size)| std::cmp::Reverse(size.max(&1).ilog2()));
            for (part, size) in ordered {
                match part {
                    Part::Node(node) => starts[*node] = at,
                    Part::Zone(zone) => zone_starts[*zone] = at,
                }
                at = at.saturating_add(size);
            }
        }
        Row { starts, length: zones.first().copied().unwrap_or(0) }
    }

    /// As [`Zones::spread`], with as much slack as a row of `room` allows: from `slack` on less and less.
    pub fn fit(&self, sizes: &[u64], slack: u32, room: u64) -> Row {
        let tries = (slack..slack + 6).map(Some);
        let mut rows = tries.map(|slack| self.spread(sizes, slack));
        rows.find(|row| row.length <= room).unwrap_or_else(|| self.spread(sizes, None))
    }
}

/// Rounded up to a multiple of its 2^`slack`-th part, which is a power of two.
fn padded(size: u64, slack: Option<u32>) -> u64 {
    match slack {
        Some(slack) if size > 0 => {
            let slack = if size < SMALL { slack + 2 } else { slack };
            let part = 1 << size.ilog2().saturating_sub(slack);
            // What does not fit into a number does not fit on a disk.
            size.checked_next_multiple_of(part).unwrap_or(u64::MAX)
        }
        _ => size,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::ext4::layout::lost_found;
    use crate::format::nodes::nodes;
    use crate::tree::{Content, Entry, Kind, Meta, Tree, TreePath};

    #[test]
    fn slack_grows_with_the_size() {
        assert_eq!([0, 1, 15, 17, 70, 1000, 5000].map(|size| padded(size, Some(2))), [0, 1, 15, 17, 72, 1024, 5120]);
        assert_eq!(padded(1000, None), 1000);
    }

    fn starts(names: &[String], size: u64) -> Vec<(TreePath, u64)> {
        let mut tree = Tree::new();
        for name in names {
            let path = TreePath::new(name).unwrap();
            let kind = Kind::File(Content::inline([]));
            tree.put(&path, Entry { meta: Meta::root(0o644), kind, origin: "t".into() }).unwrap();
        }
        let made = (lost_found(), Entry { meta: Meta::root(0o700), kind: Kind::Directory, origin: "t".into() });
        let nodes = nodes(&tree, Some(&made)).unwrap();
        let row = Zones::new(&nodes).spread(&vec![size; nodes.len()], Some(2));
        let mut ends: Vec<(u64, u64)> = row.starts.iter().map(|start| (*start, start + size)).collect();
        ends.sort();
        assert!(ends.windows(2).all(|pair| pair[0].1 <= pair[1].0) && ends.last().unwrap().1 <= row.length);
        nodes.iter().zip(row.starts).map(|(node, start)| (node.path.clone(), start)).collect()
    }

    #[test]
    fn slack_does_not_pile_up() {
        let deep: Vec<String> = (1..300).map(|depth| format!("{}f", "d/".repeat(depth))).collect();
        let length = starts(&deep, 100).iter().map(|(_, start)| *start).max();
        assert!(length.is_some_and(|length| length < 4 * 600 * 100), "{length:?}");
    }

    #[test]
    fn a_new_file_moves_few_others() {
        let names: Vec<String> =
            (0..40).flat_map(|folder| (0..100).map(move |file| format!("{folder}/x/{file}"))).collect();
        for size in [1, 10] {
            let before = starts(&names, size);
            let mut moved = 0;
            for folder in 0..40 {
                let more: Vec<String> = names.iter().cloned().chain([format!("{folder}/x/new")]).collect();
                let after = starts(&more, size);
                moved += before.iter().filter(|known| !after.contains(known)).count();
            }
            // Of about 4000 each time.
            assert!(moved / 40 < 200, "{} on average", moved / 40);
        }
    }
}
