//! Where the seed of an ISO comes from.
//!
//! Owns: [`SeedSource`]. Nothing is read before it is needed: a lock can be made of documents without a seed.

use std::path::{Path, PathBuf};

use crate::api::image_configuration::{Builder, DocumentSelector, IsoBuilder};
use crate::document::Node;
use crate::error::{Context, Result};
use crate::kustomize::Selector;
use crate::seed::{self, Identity, Input, Seed, Selection};

/// Files, or documents among those of the entry point.
#[derive(Clone)]
pub struct SeedSource {
    user_data: Option<PathBuf>,
    network_data: Option<PathBuf>,
    /// User data and network data that are here already; they win over everything else.
    bytes: Option<[Vec<u8>; 2]>,
    /// Where files lie that documents name; the first that has one counts.
    folders: Vec<PathBuf>,
    documents: Vec<Node>,
    /// Which of the documents, for user data and network data.
    selections: [Selection; 2],
    site: String,
    /// One that is there already.
    finished: Option<Seed>,
}

/// Documents hold secrets.
impl std::fmt::Debug for SeedSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut out = f.debug_struct("SeedSource");
        out.field("user_data", &self.user_data).field("network_data", &self.network_data).finish_non_exhaustive()
    }
}

impl SeedSource {
    /// What `isobuilder` names, else the older `builder` of the image, else documents. `volume` is looked at first.
    pub(super) fn new(
        documents: &[Node],
        site: &str,
        iso: Option<&IsoBuilder>,
        image: Option<&Builder>,
        volume: Option<&Path>,
    ) -> SeedSource {
        let selections = selections(iso);
        let iso = iso.map(|builder| (&builder.user_data_file_name, &builder.network_config_file_name));
        let image = image.map(|builder| (&builder.user_data_file_name, &builder.network_config_file_name));
        let user = iso.and_then(|(user, _)| user.as_ref()).or(image.and_then(|(user, _)| user.as_ref()));
        let network = iso.and_then(|(_, net)| net.as_ref()).or(image.and_then(|(_, net)| net.as_ref()));
        SeedSource {
            user_data: user.map(PathBuf::from),
            network_data: network.map(PathBuf::from),
            bytes: None,
            folders: volume.map(Path::to_owned).into_iter().collect(),
            documents: documents.to_vec(),
            selections,
            site: site.to_owned(),
            finished: None,
        }
    }

    /// A seed that was read and checked before; nothing else counts then.
    pub fn take(&mut self, seed: Seed) {
        self.finished = Some(seed);
    }

    /// Adds the folder of the documents.
    pub(super) fn add_folder(&mut self, folder: &Path) {
        self.folders.push(folder.to_owned());
    }

    /// Files that win over all that documents say.
    pub fn give(&mut self, user_data: Option<&Path>, network_data: Option<&Path>) {
        let here = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        self.user_data = user_data.map(here).or(self.user_data.take());
        self.network_data = network_data.map(here).or(self.network_data.take());
    }

    /// Bytes that win over all that documents say.
    pub(super) fn give_bytes(&mut self, user_data: Vec<u8>, network_data: Vec<u8>) {
        self.bytes = Some([user_data, network_data]);
    }

    /// Where a named file is, or the first place where it is missing.
    fn find(&self, name: &Path) -> PathBuf {
        let places: Vec<PathBuf> = self.folders.iter().map(|folder| folder.join(name)).collect();
        let there = places.iter().find(|path| path.is_file()).or(places.first());
        there.cloned().unwrap_or_else(|| name.to_owned())
    }

    /// The files that it is read from, as far as they are there.
    pub fn files(&self) -> Vec<PathBuf> {
        let named = self.user_data.iter().chain(&self.network_data).map(|name| self.find(name));
        named.filter(|path| path.is_file()).collect()
    }

    /// Reads, checks and completes the seed.
    pub fn load(&self) -> Result<Seed> {
        if let Some(seed) = &self.finished {
            return Ok(seed.clone());
        }
        let [user, network] = &self.selections;
        let input = |file: &Option<PathBuf>, selection: &Selection| match file {
            Some(path) => Input::File(self.find(path)),
            None => Input::Documents(&self.documents, selection.clone()),
        };
        let (user_data, network_data) = match &self.bytes {
            Some([user, network]) => {
                (Input::Bytes("user data".into(), user.clone()), Input::Bytes("network config".into(), network.clone()))
            }
            None => (input(&self.user_data, user), input(&self.network_data, network)),
        };
        let request =
            seed::Request { user_data, network_data, identity: Identity { site: self.site.clone(), hostname: None } };
        seed::load(&request).context("loading the seed of the ISO")
    }
}

/// What `isobuilder` says on documents.
fn selections(iso: Option<&IsoBuilder>) -> [Selection; 2] {
    let selection = |selector: &Option<DocumentSelector>, key: &Option<String>| Selection {
        selector: selector.clone().map(|selector| {
            let DocumentSelector { group, version, kind, name, namespace, label_selector, annotation_selector } =
                selector;
            Selector { group, version, kind, name, namespace, label_selector, annotation_selector }
        }),
        key: key.clone(),
    };
    iso.map_or_else(Default::default, |iso| {
        [
            selection(&iso.user_data_selector, &iso.user_data_key),
            selection(&iso.network_config_selector, &iso.network_config_key),
        ]
    })
}
