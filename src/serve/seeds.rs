//! A seed that lies in `openstack/latest/`, in the form that cloud-init's NoCloud data source asks a web server for
//! (`ds=nocloud;s=http://server/path/`): `meta-data`, `user-data`, `vendor-data`, `network-config` beside that folder.

use std::os::unix::fs::FileExt;

use super::files::{Files, Found};
use crate::error::{Context, Result};
use crate::seed::{self, nocloud};
use crate::tree::TreePath;

/// Larger files are no seed.
const LIMIT: u64 = 16 << 20;

/// What a path stands for that is no file.
pub(super) fn find(files: &Files, path: &TreePath) -> Result<Option<Vec<u8>>> {
    let Some(folder) = path.parent() else { return Ok(None) };
    let read = |name: &str| -> Result<Option<Vec<u8>>> {
        let Some(name) = TreePath::new(format!("{}/{name}", seed::FOLDER)) else { return Ok(None) };
        match files.find(&folder.append(&name))? {
            Some(Found::File { file, size, .. }) if size <= LIMIT => {
                let mut bytes = vec![0; size as usize];
                file.read_exact_at(&mut bytes, 0).context("reading a seed")?;
                Ok(Some(bytes))
            }
            _ => Ok(None),
        }
    };
    match path.file_name() {
        b"user-data" => read(seed::USER_DATA),
        // Asked for, and allowed to be empty.
        b"vendor-data" => Ok(read(seed::META_DATA)?.map(|_| Vec::new())),
        b"meta-data" => read(seed::META_DATA)?.map(|bytes| nocloud::meta_data(&bytes)).transpose(),
        b"network-config" => read(seed::NETWORK_DATA)?.map(|bytes| nocloud::network_config(&bytes)).transpose(),
        _ => Ok(None),
    }
}
