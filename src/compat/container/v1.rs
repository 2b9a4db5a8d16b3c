//! Contract v1, which airshipctl uses: a YAML file on the volume, named by `BUILDER_CONFIG`, and variables that override
//! what it says about files.

use std::path::{Path, PathBuf};

use super::{
    Contract, Environment, Order, Surroundings, image_type, output_file_name, read_file, read_text, there, usage,
};
use crate::compat::Texts;
use crate::document::{Diagnostic, Node, load_file};
use crate::error::{Context, Result};

const METADATA: &str = "output-metadata.yaml";

pub(super) fn read(surroundings: &Surroundings<'_>) -> Result<Order> {
    let environment = surroundings.environment;
    let path = environment.get("BUILDER_CONFIG").filter(|path| !path.is_empty()).ok_or_else(|| {
        usage("`BUILDER_CONFIG` is not set").hint("it names the builder's YAML file on the volume; or set `VERSION=v2`")
    })?;
    let path = Path::new(path);
    if !path.is_file() {
        return Err(usage(format!("builder configuration {} does not exist", path.display())));
    }
    let documents = load_file(path).with_context(|| format!("reading {}", path.display()))?;
    let document = documents.first().ok_or_else(|| usage(format!("{} is empty", path.display())))?;
    // With and without `spec`, as the kinds of different years have it.
    let part = |name: &str| document.get(name).or_else(|| document.at(&["spec", name]));
    let volume = part("container").and_then(|container| container.get("volume"));
    let volume = volume.and_then(Node::text).filter(|volume| !volume.is_empty());
    let volume = volume.ok_or_else(|| {
        Diagnostic::on(document, "`container.volume` is missing").hint("say `volume: HOST-FOLDER:CONTAINER-FOLDER`")
    })?;
    let (host_folder, folder) = halves(volume)?;
    let folder = there(surroundings.volume.map_or(folder, Path::to_owned))?;
    let builder = |key: &str| part("builder").and_then(|builder| builder.get(key)).and_then(Node::text);
    let image_type = image_type(environment, builder("imageType"))?;
    let given = |variable: &str, key: &str| {
        let name = environment.get(variable).map(String::as_str).filter(|name| !name.is_empty()).or(builder(key))?;
        Some(folder.join(name))
    };
    let text =
        |variable: &str, key: &str, what: &str| given(variable, key).map(|path| read_text(&path, what)).transpose();
    let data =
        |variable: &str, key: &str, what: &str| given(variable, key).map(|path| read_file(&path, what)).transpose();
    let qcow = text("QCOW_CONFIG_FILE", "qcowVarsFileName", "qcow variables")?;
    let osconfig = text("OSCONFIG_FILE", "osconfigVarsFileName", "osconfig variables")?;
    let names = [builder("outputFileName"), environment.get("OUTPUT_FILE_NAME").map(String::as_str)];
    let metadata = environment.get("OUTPUT_METADATA_FILE_NAME").map(String::as_str).filter(|name| !name.is_empty());
    Order {
        contract: Contract::V1,
        image_type,
        host_folder,
        output_file_name: output_file_name(&names, qcow.as_deref(), image_type)?,
        output_metadata_file_name: metadata.or(builder("outputMetadataFileName")).unwrap_or(METADATA).to_owned(),
        // The file of the volume takes the place of the one in the container, as upstream copies it there.
        texts: Texts { replaces_osconfig: osconfig.is_some(), osconfig, qcow },
        user_data: data("USER_DATA_FILE", "userDataFileName", "user data")?,
        network_config: data("NET_CONFIG_FILE", "networkConfigFileName", "network config")?,
        documents: None,
        builder_image: image(environment),
        volume: folder,
    }
    .check()
}

fn image(environment: &Environment) -> Option<String> {
    environment.get("IMAGE").cloned().filter(|image| !image.is_empty())
}

/// `host:container`; one path is both.
fn halves(volume: &str) -> Result<(PathBuf, PathBuf)> {
    let parts: Vec<&str> = volume.split(':').collect();
    let (host, container) = match parts.as_slice() {
        [both] => (*both, *both),
        [host, container] | [host, container, "rw" | "z" | "Z"] => (*host, *container),
        _ => ("", ""),
    };
    if host.is_empty() || !container.starts_with('/') {
        return Err(usage(format!("`container.volume` is `{volume}`, not `HOST-FOLDER:CONTAINER-FOLDER`")));
    }
    Ok((host.into(), container.into()))
}
