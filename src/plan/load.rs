//! From a folder of documents to an Intent: render, pick the AirshipImage, decode, check, normalise.
//!
//! Owns: [`load_entry_point`], [`load_bundle`], [`load_iso`], the same of texts, [`from_documents`]. Both ways in, site documents and upstream's
//! variable files, meet in the last one.

use std::path::Path;

use super::intent::{Intent, SITE_LABEL};
use super::seed::SeedSource;
use super::{container, normalise, outputs};
use crate::api::{AirshipImage, ImageConfiguration, NodeProfile};
use crate::check::{self, documents::Subject};
use crate::compat;
use crate::document::{Diagnostic, Node, decode};
use crate::error::{Context, Error, Result};
use crate::kustomize;

/// Renders an entry point and makes an Intent of it. An ImageConfiguration among the rendered documents says what to
/// produce; without one it is a qcow2.
pub fn load_entry_point(folder: &Path) -> Result<Intent> {
    let context = || format!("loading {}", folder.display());
    let documents = kustomize::build_strict(folder, &kustomize::Options::default()).with_context(context)?;
    Ok(from_documents(&documents, None).with_context(context)?.locked_in(folder, None))
}

/// The same for one image of a folder with upstream's variable files: `<workdir>/qcow-bundle/<bundle>`, on the
/// release that `distro` names.
pub fn load_bundle(workdir: &Path, bundle: &str, distro: &str) -> Result<Intent> {
    let context = || format!("loading bundle `{bundle}` of {}", workdir.display());
    let documents = compat::documents(workdir, bundle, distro).with_context(context)?;
    let folder = workdir.join(compat::BUNDLE).join(bundle);
    let intent = from_documents(&documents, None).with_context(context)?;
    Ok(intent.locked_in(&folder, Some(distro)))
}

/// The same for the ISO of the ephemeral node: `<workdir>/iso`.
pub fn load_iso(workdir: &Path, distro: &str) -> Result<Intent> {
    let folder = workdir.join(compat::ISO);
    let context = || format!("loading {}", folder.display());
    let documents = compat::iso_documents(workdir, distro).with_context(context)?;
    let intent = from_documents(&documents, None).with_context(context)?;
    Ok(intent.locked_in(&folder, Some(distro)))
}

/// The same for an image whose variables come as text (`compat::container`). `file_name` is that of the image file.
pub fn load_texts(workdir: &Path, image: &str, distro: &str, texts: &compat::Texts, file_name: &str) -> Result<Intent> {
    let context = || format!("loading image `{image}`");
    let documents = compat::documents_of_texts(workdir, image, distro, texts, file_name).with_context(context)?;
    from_documents(&documents, None).with_context(context)
}

/// The same for an ISO, whose user data and network data come as bytes.
pub fn load_iso_texts(
    workdir: &Path,
    distro: &str,
    texts: &compat::Texts,
    file_name: &str,
    [user_data, network_data]: [Vec<u8>; 2],
) -> Result<Intent> {
    let context = || format!("loading ISO `{file_name}`");
    let documents = compat::iso_documents_of_texts(workdir, distro, texts, file_name).with_context(context)?;
    let mut intent = from_documents(&documents, None).with_context(context)?;
    if let Some(seed) = &mut intent.seed {
        seed.give_bytes(user_data, network_data);
    }
    Ok(intent)
}

/// Rendered documents, and the document that says what to produce if it is not among them.
pub fn from_documents(documents: &[Node], executor: Option<&Node>) -> Result<Intent> {
    let document = only(documents, "AirshipImage")?
        .ok_or_else(|| Error::documents("no AirshipImage among the documents").hint(described(documents)))?;
    let executor = match executor {
        Some(node) => Some(node),
        None => only(documents, "ImageConfiguration")?,
    };
    let configuration = executor.map(decode::<ImageConfiguration>).transpose()?;
    let executor = configuration.as_ref().zip(executor);
    let image: AirshipImage = decode(document)?;
    let profiles: Vec<&Node> = documents.iter().filter(|node| kind(node) == Some("NodeProfile")).collect();
    for profile in &profiles {
        decode::<NodeProfile>(profile)?;
    }
    let subject = Subject { image: &image, document, profiles, executor };
    let outputs = outputs::outputs(&image, document, executor)?;
    let warnings = check::enforce(check::documents::run(&subject))?;
    let mut params = image.spec.params.clone();
    normalise::normalise(&mut params);
    let builders = executor.map(|(configuration, _)| &configuration.spec.params);
    let of_qcow = builders.and_then(|builders| builders.qcowbuilder.as_ref());
    let of_iso = builders.and_then(|builders| builders.isobuilder.as_ref());
    let named = of_qcow.or(image.spec.builder.as_ref()).and_then(|builder| builder.output_metadata_file_name.clone());
    let is_iso = outputs.iter().any(|output| output.kind.is_live());
    let metadata_name =
        of_iso.filter(|_| is_iso).and_then(|builder| builder.output_metadata_file_name.clone()).or(named);
    let site = image.metadata.labels.get(SITE_LABEL).cloned().unwrap_or_else(|| "default".into());
    let container = container::container(&image, document, executor)?;
    let output_folder = container.volume.as_ref().map(|volume| volume.host.clone());
    let seed = is_iso
        .then(|| SeedSource::new(documents, &site, of_iso, image.spec.builder.as_ref(), output_folder.as_deref()));
    Ok(Intent {
        image: image.metadata.name.clone(),
        site,
        seed,
        params,
        outputs,
        output_metadata_file_name: metadata_name,
        output_folder,
        container,
        lock_path: None,
        warnings,
        document: document.clone(),
    })
}

fn kind(document: &Node) -> Option<&str> {
    document.get("kind")?.text()
}

/// The only document of a kind; none is fine, two are an error that shows the second.
fn only<'a>(documents: &'a [Node], wanted: &str) -> Result<Option<&'a Node>> {
    let mut found = documents.iter().filter(|node| kind(node) == Some(wanted));
    let first = found.next();
    match (first, found.next()) {
        (Some(first), Some(second)) => {
            let place = second.get("kind").unwrap_or(second);
            let message = format!("more than one {wanted} among the documents of one entry point");
            let mut diagnostic = Diagnostic::at(&place.origin.at, message);
            diagnostic = diagnostic.note(&first.get("kind").unwrap_or(first).origin.at, "the first one");
            Err(diagnostic.hint("an entry point describes one image; give the other one a folder of its own").into())
        }
        _ => Ok(first),
    }
}

fn described(documents: &[Node]) -> String {
    let mut kinds: Vec<&str> = documents.iter().filter_map(kind).collect();
    kinds.sort_unstable();
    kinds.dedup();
    match kinds.is_empty() {
        true => "the entry point renders to nothing".into(),
        false => format!("kinds found: `{}`", kinds.join("`, `")),
    }
}
