//! `boot.ipxe`: the way to the netboot sets of a folder, with the address that the client came by.

use super::files::{Files, Found};
use super::page::encode;
use crate::error::Result;
use crate::tree::TreePath;

const NAME: &[u8] = b"boot.ipxe";

/// The script for a folder with netboot sets: one is started, several are a menu. A file of that name is served as it is.
pub(super) fn find(files: &Files, path: &TreePath, host: Option<&str>) -> Result<Option<Vec<u8>>> {
    let Some(folder) = path.parent().filter(|_| path.file_name() == NAME) else { return Ok(None) };
    // It becomes part of a script.
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-.:[]".contains(&byte);
    let Some(host) = host.filter(|host| !host.is_empty() && host.bytes().all(plain)) else { return Ok(None) };
    let Some(Found::Folder(items)) = files.find(&folder)? else { return Ok(None) };
    let sets: Vec<&str> =
        items.iter().filter(|item| item.size.is_some()).filter_map(|item| item.name.strip_suffix(".ipxe")).collect();
    let part = |part: &[u8]| encode(&String::from_utf8_lossy(part));
    let base = folder.components().map(part).fold(format!("http://{host}"), |base, part| format!("{base}/{part}"));
    let mut script = format!("#!ipxe\nset base-url {base}\n");
    match sets.as_slice() {
        [] => return Ok(None),
        [only] => script.push_str(&format!("chain ${{base-url}}/{}.ipxe\n", encode(only))),
        several => {
            script.push_str("menu What to start\n");
            for (number, name) in several.iter().enumerate() {
                // A label of a menu may be any text in one line.
                let label: String = name.chars().filter(|letter| !letter.is_control() && *letter != '$').collect();
                script.push_str(&format!("item set{number} {label}\n"));
            }
            script.push_str("choose target && goto ${target}\n");
            for (number, name) in several.iter().enumerate() {
                script.push_str(&format!(":set{number}\nchain ${{base-url}}/{}.ipxe\n", encode(name)));
            }
        }
    }
    Ok(Some(script.into_bytes()))
}
