//! Contract v2, which the upstream image-builder's own tools use: everything on standard input, the output in the last
//! volume that is mounted at the top of the file tree.
//!
//! Standard input is upstream's text of sections (`user_data:`, `network_config:`, `osconfig:`, `qcow:`, each with a file
//! below it, indented by four; `outputFileName:`), or what airshipctl gives a GenericContainer: a ResourceList whose
//! `functionConfig` holds the same keys, or whose items hold an AirshipImage.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::{Contract, FILE_BYTES, Order, Surroundings, image_type, output_file_name, there, usage};
use crate::compat::Texts;
use crate::document::{Node, load_str};
use crate::error::{Context, Result};

const SECTIONS: [&str; 5] = ["user_data", "network_config", "osconfig", "qcow", "outputFileName"];
/// Never volumes.
const SYSTEM: [&str; 3] = ["proc", "sys", "dev"];

pub(super) fn read(surroundings: &mut Surroundings<'_>) -> Result<Order> {
    let environment = surroundings.environment;
    let image_type = image_type(environment, None)?;
    let mut text = String::new();
    let read = surroundings.stdin.take(FILE_BYTES + 1).read_to_string(&mut text).context("reading standard input")?;
    if read as u64 > FILE_BYTES {
        return Err(usage("standard input is too large for settings"));
    }
    let volume = match surroundings.volume {
        Some(given) => there(given.to_owned())?,
        None => volume(surroundings.mountinfo, surroundings.own_folders)?,
    };
    let resources = resource_list(&text)?;
    let (sections, documents) = match resources {
        Some(list) => (of_function(&list), items(&list)),
        None => (sections(&text), None),
    };
    let section = |name: &str| sections.get(name).filter(|text| !text.trim().is_empty()).cloned();
    let qcow = section("qcow");
    let names = [
        sections.get("outputFileName").map(|name| name.trim()),
        environment.get("OUTPUT_FILE_NAME").map(String::as_str),
    ];
    Order {
        contract: Contract::V2,
        image_type,
        host_folder: volume.clone(),
        output_file_name: output_file_name(&names, qcow.as_deref(), image_type)?,
        output_metadata_file_name: String::new(),
        texts: Texts { replaces_osconfig: false, osconfig: section("osconfig"), qcow },
        user_data: section("user_data").map(String::into_bytes),
        network_config: section("network_config").map(String::into_bytes),
        documents,
        builder_image: environment.get("IMAGE").cloned().filter(|image| !image.is_empty()),
        volume,
    }
    .check()
}

/// The text under each key that stands at the start of a line, without its indentation.
pub(super) fn sections(text: &str) -> BTreeMap<String, String> {
    let mut found: BTreeMap<String, String> = BTreeMap::new();
    let mut current: Option<String> = None;
    for line in text.lines() {
        if line.trim().is_empty() || line.starts_with(' ') {
            if let Some(section) = current.as_ref().and_then(|name| found.get_mut(name)) {
                let indented = line.bytes().take_while(|byte| *byte == b' ').take(4).count();
                section.push_str(&line[indented..]);
                section.push('\n');
            }
            continue;
        }
        current = None;
        let Some((name, rest)) = line.split_once(':').filter(|(name, _)| SECTIONS.contains(&name.trim())) else {
            continue;
        };
        let (name, rest) = (name.trim().to_owned(), rest.trim());
        // `|` and its kin begin a block of text; anything else is the value itself.
        let value = if rest.starts_with(['|', '>']) { "" } else { rest.trim_matches(['"', '\'']) };
        current = Some(name.clone());
        found.insert(name, if value.is_empty() { String::new() } else { format!("{value}\n") });
    }
    found
}

/// Standard input as a ResourceList, if it is one.
fn resource_list(text: &str) -> Result<Option<Node>> {
    let is_one = text.lines().any(|line| line.trim_end() == "kind: ResourceList");
    if !is_one {
        return Ok(None);
    }
    let documents = load_str("standard input", text)?;
    Ok(documents.into_iter().find(|document| document.get("kind").and_then(Node::text) == Some("ResourceList")))
}

/// The keys of sections in `functionConfig`: at its top, or below `data` or `spec`.
fn of_function(list: &Node) -> BTreeMap<String, String> {
    let Some(config) = list.get("functionConfig") else { return BTreeMap::new() };
    let places = [Some(config), config.get("data"), config.get("spec")];
    let find = |name: &str| places.iter().flatten().find_map(|place| place.get(name)?.text()).map(str::to_owned);
    SECTIONS.iter().filter_map(|name| Some(((*name).to_owned(), find(name)?))).collect()
}

fn items(list: &Node) -> Option<Vec<Node>> {
    let items = list.get("items").and_then(Node::as_sequence)?;
    let image = items.iter().any(|item| item.get("kind").and_then(Node::text) == Some("AirshipImage"));
    image.then(|| items.to_vec())
}

/// The last folder of `/`, by name, that something is mounted on. A whole file system in memory (`docker run --tmpfs`) is
/// not a caller's volume, a folder of one may be.
pub(super) fn volume(mountinfo: &str, own: &[PathBuf]) -> Result<PathBuf> {
    let mounted = mountinfo.lines().filter_map(|line| {
        // proc_pid_mountinfo(5): fourth, the folder of the file system that is mounted; fifth, where; behind a lone `-`,
        // the type.
        let (root, point) = (line.split(' ').nth(3)?, line.split(' ').nth(4)?);
        let kind = line.split(" - ").nth(1)?.split(' ').next()?;
        let name = point.strip_prefix('/').filter(|name| !name.is_empty() && !name.contains('/'))?;
        let path = Path::new("/").join(name);
        let ours = (kind == "tmpfs" && root == "/") || SYSTEM.contains(&name) || own.contains(&path);
        (!ours).then_some(path)
    });
    mounted.max().ok_or_else(|| {
        usage("no volume is mounted").hint("mount a folder for the output, as with `docker run --volume $PWD:/config`")
    })
}
