//! Which files to produce: `ImageConfiguration.spec.image`, its older synonym `action`, and names.
//!
//! Owns: the only place where types, file names and compression are decided. Where the builder runs is `container`'s.

use super::intent::{Compression, Output};
use crate::api::image_configuration::{Builder, ImageType, TarCompression};
use crate::api::{AirshipImage, ImageConfiguration};
use crate::document::{Diagnostic, Node, suggestion};
use crate::error::{Error, Result};

/// An ImageConfiguration with the document it came from.
pub(super) type Executor<'a> = Option<(&'a ImageConfiguration, &'a Node)>;

const ACTIONS: [(&str, ImageType); 3] =
    [("build-qcow", ImageType::Qcow), ("build-iso", ImageType::Iso), ("build-root", ImageType::Root)];

pub(super) fn outputs(image: &AirshipImage, document: &Node, executor: Executor) -> Result<Vec<Output>> {
    let types = types(image, document, executor)?;
    let name = executor.and_then(|(configuration, _)| configuration.spec.image.output_file_name.as_deref());
    let archive = archive_compression(name, executor)?;
    let params = executor.map(|(configuration, _)| &configuration.spec.params);
    let subformat = params.and_then(|params| params.vhdbuilder.as_ref()).map(|builder| builder.subformat);
    let iso = params.and_then(|params| params.isobuilder.as_ref());
    let output = |kind: &ImageType| Output {
        kind: *kind,
        file_name: file_name(name, &image.metadata.name, *kind, archive, types.len()),
        compression: match kind {
            ImageType::Qcow => qcow_compression(executor),
            // The only kind that a stream-optimised one has.
            ImageType::Vmdk => Compression::Zlib,
            ImageType::Tar => archive.into(),
            ImageType::Iso | ImageType::Netboot => {
                iso.and_then(|builder| builder.compression).unwrap_or_default().into()
            }
            ImageType::Raw | ImageType::Vhd | ImageType::Root => Compression::None,
        },
        level: iso.filter(|_| kind.is_live()).and_then(|builder| builder.compression_level),
        threads: iso.filter(|_| kind.is_live()).and_then(|builder| builder.threads),
        subformat: (*kind == ImageType::Vhd).then(|| subformat.unwrap_or_default()),
    };
    Ok(types.iter().map(output).collect())
}

/// The declared types; without any, what `action` says; without that, qcow.
fn types(image: &AirshipImage, document: &Node, executor: Executor) -> Result<Vec<ImageType>> {
    let declared: Vec<ImageType> = match executor {
        Some((configuration, _)) => configuration.spec.image.types.as_slice().to_vec(),
        None => Vec::new(),
    };
    let mut types: Vec<ImageType> = Vec::new();
    for kind in declared.into_iter().map(archived) {
        if !types.contains(&kind) {
            types.push(kind);
        }
    }
    for (action, at) in actions(image, document, executor) {
        let meant = ACTIONS.iter().find(|(name, _)| *name == action).map(|(_, kind)| *kind).ok_or_else(|| {
            let names = ACTIONS.map(|(name, _)| name);
            let diagnostic = Diagnostic::on(at, format!("unknown action `{action}`"));
            Error::from(match suggestion(action, "known actions", &names) {
                Some(hint) => diagnostic.hint(hint),
                None => diagnostic,
            })
        })?;
        let meant = archived(meant);
        if types.is_empty() {
            types.push(meant);
        } else if !types.contains(&meant) {
            let names: Vec<&str> = types.iter().map(|kind| kind.name()).collect();
            let message = format!("action `{action}` contradicts type `{}`", names.join("`, `"));
            return Err(Diagnostic::on(at, message).hint("leave `action` out: `spec.image.type` says it all").into());
        }
    }
    if types.is_empty() {
        types.push(ImageType::Qcow);
    }
    Ok(types)
}

/// Upstream's root file system is a folder, which keeps owners, devices and attributes only for a privileged builder; as
/// an archive it keeps them for everybody.
fn archived(kind: ImageType) -> ImageType {
    if kind == ImageType::Root { ImageType::Tar } else { kind }
}

/// Every `action` of the documents with its place.
fn actions<'a>(image: &'a AirshipImage, document: &'a Node, executor: Executor<'a>) -> Vec<(&'a str, &'a Node)> {
    fn at<'a>(document: &'a Node, path: &[&str]) -> &'a Node {
        document.at(path).unwrap_or(document)
    }
    let mut found = Vec::new();
    if let Some(action) = &image.spec.action {
        found.push((action.as_str(), at(document, &["spec", "action"])));
    }
    if let Some(action) = image.spec.builder.as_ref().and_then(|builder| builder.action.as_deref()) {
        found.push((action, at(document, &["spec", "builder", "action"])));
    }
    if let Some((configuration, document)) = executor {
        let params = &configuration.spec.params;
        let qcow = params.qcowbuilder.as_ref().and_then(|builder| builder.action.as_deref());
        let iso = params.isobuilder.as_ref().and_then(|builder| builder.action.as_deref());
        for (key, action) in [("qcowbuilder", qcow), ("isobuilder", iso)] {
            if let Some(action) = action {
                found.push((action, at(document, &["spec", "params", key, "action"])));
            }
        }
    }
    found
}

fn file_name(wanted: Option<&str>, image: &str, kind: ImageType, archive: TarCompression, count: usize) -> String {
    let wanted = wanted.unwrap_or(image);
    let extension = if kind == ImageType::Tar { archive.extension() } else { kind.extension() };
    match ImageType::of_file_name(wanted) {
        // The only image keeps the name it was given.
        Some((named, _, _)) if count == 1 && named == kind => wanted.to_owned(),
        Some((_, stem, _)) => format!("{stem}.{extension}"),
        None => format!("{wanted}.{extension}"),
    }
}

fn qcow_compression(executor: Executor) -> Compression {
    let builder = executor.and_then(|(configuration, _)| configuration.spec.params.qcowbuilder.as_ref());
    match builder {
        Some(Builder { qcow_compress: Some(false), .. }) => Compression::None,
        Some(builder) => builder.compression.unwrap_or_default().into(),
        None => Compression::Zstd,
    }
}

/// What `tarbuilder` says, else the file name.
fn archive_compression(name: Option<&str>, executor: Executor) -> Result<TarCompression> {
    let named = name.and_then(ImageType::of_file_name).filter(|(kind, _, _)| *kind == ImageType::Tar);
    let named = named.map(|(_, _, extension)| (extension, TarCompression::of_extension(extension)));
    let builder = executor.and_then(|(configuration, document)| {
        let builder = configuration.spec.params.tarbuilder.as_ref()?;
        builder.compression.map(|compression| (compression, document))
    });
    match (named, builder) {
        (Some((extension, named)), Some((asked, document))) if named != asked => {
            let message = format!("a file called `.{extension}` contradicts the compression `tarbuilder` asks for");
            let place = document.at(&["spec", "params", "tarbuilder", "compression"]).unwrap_or(document);
            Err(Diagnostic::on(place, message)
                .hint(format!("name the file `.{}`, or leave one of the two out", asked.extension()))
                .into())
        }
        (_, Some((asked, _))) => Ok(asked),
        (Some((_, named)), None) => Ok(named),
        (None, None) => Ok(TarCompression::None),
    }
}
