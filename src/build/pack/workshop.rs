//! Where boot images are made: the target's own grub-mkimage in the sandbox.
//!
//! Owns: [`Workshop`]. What was made in the same tools before is taken from what earlier builds have kept.

use std::path::{Path, PathBuf};

use super::tools;
use crate::boot::grub::core::{self, CoreImage};
use crate::error::{Context, Result};
use crate::sandbox::Sandbox;
use crate::tree::clusters::Clusters;
use crate::tree::{Digest, Tree, host};

/// The folders in which grub-mkimage works.
pub(super) struct Workshop<'a> {
    tree: &'a Tree,
    sandbox: &'a dyn Sandbox,
    clusters: Option<&'a Clusters>,
    /// Not before they are needed: a disk with a signed boot chain and without BIOS boot has no use for them.
    tools: Option<Tree>,
    tools_digest: Option<Digest>,
    /// Root of the jobs.
    folder: PathBuf,
    /// Where their results go.
    output: PathBuf,
    opened: bool,
}

impl<'a> Workshop<'a> {
    pub(super) fn new(
        tree: &'a Tree,
        sandbox: &'a dyn Sandbox,
        scratch: &Path,
        clusters: Option<&'a Clusters>,
    ) -> Workshop<'a> {
        let (folder, output) = (scratch.join("tools"), scratch.join("output"));
        Workshop { tree, sandbox, clusters, tools: None, tools_digest: None, folder, output, opened: false }
    }

    /// Made in the same tools before.
    pub(super) fn known(&mut self, image: &CoreImage) -> Option<Vec<u8>> {
        let key = self.key(image);
        self.clusters?.piece(&key)
    }

    fn key(&mut self, image: &CoreImage) -> Digest {
        let tools = self.tools.get_or_insert_with(|| tools::tools(self.tree));
        let digest = self.tools_digest.get_or_insert_with(|| tools.digest());
        Digest::of(format!("{} {digest}", image.identity()).as_bytes())
    }

    pub(super) fn core_image(&mut self, image: &CoreImage) -> Result<Vec<u8>> {
        if let Some(core) = self.known(image) {
            return Ok(core);
        }
        let key = self.key(image);
        if !self.opened {
            let tools = self.tools.get_or_insert_with(|| tools::tools(self.tree));
            let folder = host::Folder::create(&self.folder);
            folder.and_then(|mut folder| folder.show(tools)).context("unpacking the programs that make boot images")?;
            std::fs::create_dir(&self.output).with_context(|| format!("making {}", self.output.display()))?;
            self.opened = true;
        }
        let core = core::make(image, self.tree, self.sandbox, &self.folder, &self.output)?;
        self.clusters.map_or(Ok(()), |clusters| clusters.keep_piece(key, &core))?;
        Ok(core)
    }
}
