//! The ISO image of a live system: squashfs, boot images and seed around one Tree.
//!
//! Owns: [`write`], and what identifies the part of an image that no seed changes ([`base`]). The order of work: what can
//! fail without the squashfs comes before it, for that takes longest; it goes straight to its place in the image file.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use serde_json::json;
use uuid::Uuid;

use super::Request;
use super::workshop::Workshop;
use crate::boot::grub::core::{CoreImage, hybrid_boot_image};
use crate::boot::live::{self, Medium};
use crate::boot::{Identity, grub::efi};
use crate::error::{Context, Error, Result};
use crate::format::disk::sparse;
use crate::format::disk::sums::{Spare, State, Sums, while_writing};
use crate::format::iso9660::seed::{Area, CAPACITY, Files};
use crate::format::iso9660::{Bios, Options, Plan};
use crate::format::{fat, squashfs};
use crate::interrupt;
use crate::report::{Unit, words};
use crate::seed::Seed;
use crate::tree::{Content, Digest, Entry, Kind as TreeKind, Meta, Mtime, ReadAt, Tree, TreePath};

/// Counts up when the same inputs give other bytes.
const RECIPE: u32 = 1;
/// What cloud-init looks for: a file system with this label is a config drive.
const VOLUME: &str = "config-2";
const MIB: u64 = 1 << 20;
/// Paths in one message.
const SHOWN: usize = 5;
/// As large as upstream's, so that a kernel's or a loader's growth moves nothing.
const ESP_SIZE: u64 = 10 * MIB;

/// What a live system's image is made of beside its Tree.
#[derive(Debug, Clone)]
pub struct Live {
    pub identity: Identity,
    pub seed: Seed,
    pub compression: squashfs::Compression,
    /// All cores when `None`. Changes no byte.
    pub threads: Option<usize>,
    /// Where an earlier image may be that differs in its seed alone.
    pub earlier: Option<PathBuf>,
}

impl Live {
    /// What the identifiers of the seed derive from.
    pub fn uuid(&self) -> Uuid {
        self.identity.uuid("ephemeral node")
    }

    pub fn squashfs(&self, epoch: i64) -> squashfs::Options {
        squashfs::Options {
            compression: self.compression,
            time: Mtime { seconds: epoch, nanoseconds: 0 },
            threads: self.threads,
            ..squashfs::Options::default()
        }
    }

    /// Of everything that decides the bytes outside of the seed.
    pub fn base(&self, request: &Request<'_>) -> Result<Digest> {
        let kernel = live::command_line(request.params)?;
        let grub = &request.params.kernel.grub;
        let parts = json!([
            "iso",
            RECIPE,
            env!("CARGO_PKG_VERSION"),
            request.tree.digest().to_hex(),
            self.uuid().to_string(),
            format!("{:?}", self.compression),
            request.epoch,
            kernel,
            grub,
            request.params.distribution.name,
            request.params.distribution.release,
        ]);
        Ok(Digest::of(parts.to_string().as_bytes()))
    }
}

/// Writes the image into `file`, which is empty. Both checksums fall out.
pub fn write(request: &Request<'_>, live: &Live, file: &File) -> Result<Sums> {
    let Request { tree, reporter, .. } = *request;
    let seed = seed_files(&live.seed);
    let base = live.base(request)?;
    if let Some(sums) = reuse(live, base, &seed, file)? {
        reporter.note("iso image: unchanged but for its seed, which was replaced");
        return Ok(sums);
    }
    let root = live::root_file_system(tree);
    let plan = plan(request, live)?;

    let written = squash(request, live, &root, file, plan.payload_offset())?;

    let step = reporter.step("iso image");
    let sums = finish(&plan, live.uuid(), base, written.size, &seed, file)?;
    step.finish(words::bytes(sums.size));
    Ok(sums)
}

/// Writes the squashfs, with blocks that earlier ones had. `root` is [`live::root_file_system`].
pub(super) fn squash(
    request: &Request<'_>,
    live: &Live,
    root: &Tree,
    file: &File,
    at: u64,
) -> Result<squashfs::Written> {
    let lost = live::access_lists(request.tree);
    if !lost.is_empty() {
        let names: Vec<String> = lost.iter().take(SHOWN).map(ToString::to_string).collect();
        let more = if lost.len() > SHOWN { format!(" and {} more", lost.len() - SHOWN) } else { String::new() };
        let names = names.join(", ");
        request
            .reporter
            .warning(format!("a squashfs has no access lists (POSIX ACLs): those of {names}{more} are left out"));
    }
    let step = request.reporter.step_of("squashfs", content_size(root), Unit::Bytes);
    let options = live.squashfs(request.epoch);
    let progress = |bytes| step.advance(bytes);
    let written = match request.clusters {
        Some(clusters) => squashfs::write_kept(root, file, at, &options, clusters, &progress),
        None => squashfs::write(root, file, at, &options, &progress),
    }?;
    let squashfs::Blocks { made, kept } = written.blocks;
    let blocks = match (made, kept) {
        (_, 0) => String::new(),
        (0, _) => ", all blocks taken from the cache".to_owned(),
        _ => format!(", {kept} of {} blocks taken from the cache", made + kept),
    };
    step.finish(format!("{}, {}{blocks}", live.compression.name(), words::bytes(written.size)));
    Ok(written)
}

/// Copies an earlier image that was made of the same, with another seed. Nothing if there is none, or if it is not as it
/// was written.
fn reuse(live: &Live, base: Digest, seed: &Files, file: &File) -> Result<Option<Sums>> {
    let earlier = live.earlier.as_ref().and_then(|path| File::open(path).ok());
    let Some(earlier) = earlier else { return Ok(None) };
    let size = earlier.metadata().map_or(0, |meta| meta.len());
    let Ok(area) = Area::find(&Earlier(&earlier), size) else { return Ok(None) };
    let behind = area.offset + CAPACITY;
    if area.label.base != base || area.label.identity != live.uuid() || size > behind + 2 * MIB {
        return Ok(None);
    }
    let bytes = area.encode(seed)?;
    std::io::copy(&mut &earlier, &mut &*file).context("copying the earlier image")?;
    let mut tail = vec![0; (size - behind) as usize];
    file.read_exact_at(&mut tail, behind).context("reading the image")?;
    if state_until(file, area.offset)? != area.label.state || Digest::of(&tail) != area.label.tail {
        file.set_len(0).context("emptying the image")?;
        return Ok(None);
    }
    file.write_all_at(&bytes, area.offset).context("writing the seed")?;
    let sums = Sums::resume(area.label.state, &[bytes, tail].concat())?;
    file.sync_all().context("syncing the image")?;
    Ok(Some(sums))
}

struct Earlier<'a>(&'a File);

impl ReadAt for Earlier<'_> {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        self.0.read_exact_at(buffer, offset).context("reading the earlier image")
    }
}

/// An image whose seed has secrets is for the eyes of its owner only, as the files of a seed are.
pub fn protect(seed: &Seed, file: &File) -> Result<bool> {
    let secret = !seed.secrets.is_empty();
    if secret {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        file.set_permissions(mode).context("keeping the image from others")?;
    }
    Ok(secret)
}

/// By their names in the seed's folder.
pub fn seed_files(seed: &Seed) -> Files {
    let name = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
    seed.files().into_iter().map(|(path, bytes)| (name(&path), bytes.to_vec())).collect()
}

fn content_size(tree: &Tree) -> u64 {
    let size = |entry: &Entry| if let TreeKind::File(content) = &entry.kind { content.size() } else { 0 };
    tree.iter().map(|(_, entry)| size(entry)).sum()
}

/// Everything but the squashfs.
fn plan(request: &Request<'_>, live: &Live) -> Result<Plan> {
    let Request { tree, params, epoch, sandbox, scratch, clusters, .. } = *request;
    let time = Mtime { seconds: epoch, nanoseconds: 0 };
    let id = Uuid::new_v5(&live.uuid(), tree.digest().as_bytes());
    let mut medium = Medium::new(tree, params, id, time)?;
    let mut workshop = Workshop::new(tree, sandbox, scratch, clusters);
    let core = workshop.core_image(&CoreImage::cd())?;
    let hybrid = hybrid_boot_image(tree)?;
    if !medium.signed {
        let loader = workshop.core_image(&CoreImage::efi_medium())?;
        let entry = Entry {
            meta: Meta { mtime: time, ..Meta::root(0o644) },
            kind: TreeKind::File(Content::inline(loader)),
            origin: "boot loader".into(),
        };
        let path = TreePath::new(efi::REMOVABLE).ok_or_else(|| Error::build("the loader has no path"))?;
        medium.esp.put(&path, entry)?;
    }
    let esp = fat::Options {
        size: ESP_SIZE,
        fat_type: fat::FatType::Fat16,
        volume_id: live.identity.uuid("esp").as_fields().0,
        label: String::new(),
        hidden_sectors: 0,
        latest: time,
    };
    let size = fat::required(&medium.esp, &esp)?.next_multiple_of(MIB);
    let esp = fat::make(&medium.esp, &fat::Options { size, ..esp }).context("making the EFI system partition")?;
    let options = Options {
        volume_id: VOLUME.to_owned(),
        time: epoch,
        disk_guid: live.identity.uuid("iso"),
        esp_guid: live.identity.uuid("iso esp"),
        bios: Some(Bios { hybrid, core }),
        esp: Some(esp),
        payload: TreePath::literal(live::SQUASHFS),
    };
    Plan::new(&medium.files, options)
}

/// Puts everything else around the squashfs.
fn finish(plan: &Plan, identity: Uuid, base: Digest, payload: u64, seed: &Files, file: &File) -> Result<Sums> {
    let frame = plan.frame(payload)?;
    file.set_len(frame.disk.size()).context("sizing the image")?;
    sparse::copy(&frame.disk, file, &|_| ())?;
    let state = state_until(file, frame.seed_offset)?;
    let area = plan.seed_area(&frame, identity, base, state)?.encode(seed)?;
    sparse::write_at(file, &area, frame.seed_offset).context("writing the seed")?;
    let sums = Sums::resume(state, &tail(file, frame.seed_offset, frame.disk.size())?)?;
    file.sync_all().context("syncing the image")?;
    Ok(sums)
}

/// The digests of what comes before the seed.
fn state_until(file: &File, end: u64) -> Result<State> {
    let spare = Spare::default();
    let hashed = while_writing(State::start(crate::format::disk::sums::Digests::BOTH), &[end], &spare, |pieces| {
        let mut at = 0;
        while at < end {
            interrupt::check()?;
            let mut piece = spare.take((end - at).min(MIB) as usize);
            file.read_exact_at(&mut piece, at).context("reading the image")?;
            at += piece.len() as u64;
            pieces.next(piece)?;
        }
        Ok(())
    })?;
    hashed.states.first().copied().ok_or_else(|| Error::build("the image has no place for its seed"))
}

/// From the seed on, which is little.
fn tail(file: &File, from: u64, size: u64) -> Result<Vec<u8>> {
    let mut bytes = vec![0; (size - from) as usize];
    file.read_exact_at(&mut bytes, from).context("reading the image")?;
    Ok(bytes)
}
