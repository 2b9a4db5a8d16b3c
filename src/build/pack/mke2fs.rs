//! ext4 through the target's own mke2fs(8), in the sandbox.
//!
//! Owns: [`make`] and the explicit feature list. Nothing comes from a configuration file of host or target. The list is
//! what every supported release understands: GRUB 2.04 to 2.12, e2fsprogs 1.45 to 1.47, Linux 5.4 and newer. Left out
//! for that reason: `metadata_csum_seed` and `orphan_file` (e2fsprogs 1.47 defaults; GRUB before 2.12 and e2fsck before
//! 1.47 refuse them), `casefold`, `encrypt`, `verity`, `bigalloc`, `inline_data`. ext4(5), mke2fs(8).

use std::path::Path;

use uuid::Uuid;

use super::space::{BLOCK, INODE_RATIO, journal_size};
use crate::error::{Context, Error, Kind, Result};
use crate::sandbox::{Bind, Job, Sandbox};
use crate::tree::TreePath;

const FEATURES: &str = "has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,sparse_super,\
                        large_file,huge_file,dir_nlink,extra_isize,metadata_csum";

/// The whole of mke2fs.conf(5), so that neither the host's nor the target's has a say.
const CONFIGURATION: &str = "mke2fs.conf";

/// Where the job sees the content and its output. Both are part of every Debian system (base-files): a folder made for
/// the purpose would be copied too.
const SOURCE: &str = "mnt";
const OUTPUT: &str = "media";

/// What the file system is, content apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// In bytes.
    pub size: u64,
    pub uuid: Uuid,
    pub hash_seed: Uuid,
    /// Seconds since the epoch: every time that is not a file's own.
    pub epoch: i64,
}

/// Makes a file system with the content of the folder `source` in a new sparse file `name` of the folder `folder`.
/// `root` is the target's root on the host: its mke2fs does the work.
pub fn make(
    sandbox: &dyn Sandbox,
    root: &Path,
    source: &Path,
    folder: &Path,
    name: &str,
    options: &Options,
) -> Result<()> {
    let context = || format!("making the ext4 file system {name}");
    let file = std::fs::File::create_new(folder.join(name)).with_context(context)?;
    file.set_len(options.size).with_context(context)?;
    let configuration =
        format!("[defaults]\nbase_features = {FEATURES}\n[fs_types]\next4 = {{\nfeatures = {FEATURES}\n}}\n");
    std::fs::write(folder.join(CONFIGURATION), configuration).with_context(context)?;
    let finished = sandbox.run(root, &job(source, folder, name, options), &mut |_| {}).with_context(context)?;
    if finished.success {
        let file = std::fs::File::options().read(true).write(true).open(folder.join(name)).with_context(context)?;
        return super::inode_times::settle(&file).with_context(context);
    }
    let full = ["Could not allocate", "No space left", "no free space", "Could not expand"];
    let kind = if full.iter().any(|text| finished.tail.contains(text)) { Kind::Space } else { Kind::Build };
    Err(Error::new(kind, format!("mke2fs ended with {}: {}", finished.status, finished.tail.trim()))
        .add_context(context()))
}

fn job(source: &Path, folder: &Path, name: &str, options: &Options) -> Job {
    let epoch = options.epoch.max(0).to_string();
    let mut job = Job::new([
        "mke2fs".to_owned(),
        "-q".to_owned(),
        "-F".to_owned(),
        "-text4".to_owned(),
        format!("-Onone,{FEATURES}"),
        format!("-b{BLOCK}"),
        "-I256".to_owned(),
        format!("-i{INODE_RATIO}"),
        "-m5".to_owned(),
        "-r1".to_owned(),
        "-eremount-ro".to_owned(),
        "-olinux".to_owned(),
        format!("-Jsize={}", journal_size(options.size) >> 20),
        format!("-U{}", options.uuid),
        format!("-Ehash_seed={},root_owner=0:0,lazy_itable_init=0,lazy_journal_init=0,nodiscard", options.hash_seed),
        format!("-d/{SOURCE}"),
        format!("/{OUTPUT}/{name}"),
        format!("{}", options.size / BLOCK),
    ]);
    // Both names of the clock: e2fsprogs 1.47.1 reads the second.
    job.environment = vec![
        ("MKE2FS_CONFIG".to_owned(), format!("/{OUTPUT}/{CONFIGURATION}")),
        ("E2FSPROGS_FAKE_TIME".to_owned(), epoch.clone()),
        ("SOURCE_DATE_EPOCH".to_owned(), epoch),
    ];
    job.binds = vec![
        Bind { source: source.to_owned(), target: TreePath::literal(SOURCE), read_only: true },
        Bind { source: folder.to_owned(), target: TreePath::literal(OUTPUT), read_only: false },
    ];
    job
}
