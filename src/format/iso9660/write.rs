//! From the plan to the bytes around the payload.
//!
//! Owns: [`Frame`]: everything but the payload, as data, and [`records`], the records of one folder.

use super::format::{
    BLOCK, BootEntry, FIRST_DESCRIPTOR, FLAG_DIRECTORY, FLAG_MORE_EXTENTS, LARGEST_EXTENT, Record, SP, Volume,
    boot_catalog, boot_record, extension_reference, terminator,
};
use super::layout::{Data, MIB, NodeKind, Plan};
use super::seed::{self, Area, Label};
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::format::disk::sums::State;
use crate::format::disk::{DiskImage, Extent};
use crate::format::gpt;
use crate::tree::Digest;

/// What is known when the payload has been written.
pub struct Places {
    pub payload: u64,
    pub seed_block: u32,
}

/// The image without its payload and its seed.
#[derive(Debug, Clone)]
pub struct Frame {
    /// As large as the image; zero where payload and seed go.
    pub disk: DiskImage,
    /// Where the seed area goes, [`seed::CAPACITY`] bytes.
    pub seed_offset: u64,
}

/// UEFI 2.10 table 5.7: the EFI system partition.
const ESP: uuid::Uuid = uuid::Uuid::from_u128(0xC12A7328_F81F_11D2_BA4B_00A0C93EC93B);
/// Sector of the disk, 512 bytes.
const SECTOR: u64 = gpt::SECTOR;
/// Where GRUB's boot images have the place of what they load (`--grub2-mbr` and `--grub2-boot-info` of xorriso(1)): the
/// boot sector that of the disk loader, which follows 2048 bytes of CD loader; the disk loader that of the rest.
const HYBRID_TARGET: usize = 0x1B0;
const LOADER_TARGET: usize = 2048 + 500;
/// mkisofs(8), "EL TORITO BOOT INFORMATION TABLE".
const INFO_TABLE: usize = 8;
const INFO_SUM_FROM: usize = 64;

impl Plan {
    /// Everything around a payload of that size.
    pub fn frame(&self, payload: u64) -> Result<Frame> {
        let seed_offset = self.seed_offset(payload)?;
        let size = seed_offset + seed::CAPACITY + MIB;
        let too_large = |_| Error::new(ErrorKind::Space, "the image is larger than ISO 9660 can hold");
        let blocks = u32::try_from(size / BLOCK).map_err(too_large)?;
        let places = Places { payload, seed_block: (seed_offset / BLOCK) as u32 };
        let mut extents = self.tables(size)?;
        let mut put = |block: u64, bytes: Vec<u8>| extents.push(Extent::bytes(block * BLOCK, bytes));
        put(FIRST_DESCRIPTOR, self.volume(blocks)?);
        put(FIRST_DESCRIPTOR + 1, boot_record(self.catalog));
        put(FIRST_DESCRIPTOR + 2, terminator());
        put(u64::from(self.catalog), boot_catalog(&self.boot_entries()));
        for (block, big) in [(self.path_tables[0], false), (self.path_tables[1], true)] {
            put(u64::from(block), self.path_table(big, &places));
        }
        for index in &self.directories {
            if matches!(self.nodes[*index].kind, NodeKind::Directory(_)) {
                put(u64::from(self.nodes[*index].block), records(self, *index, &places)?);
            }
        }
        for node in &self.nodes {
            let offset = u64::from(node.block) * BLOCK;
            match &node.kind {
                NodeKind::File(Data::Content(content)) => extents.push(Extent::content(offset, content.clone())),
                NodeKind::File(Data::Bios) => extents.push(Extent::bytes(offset, self.bios_image(node.block)?)),
                _ => {}
            }
        }
        let mut disk = DiskImage::new(size, extents)?;
        if let (Some(offset), Some(esp)) = (self.esp_offset, &self.options.esp) {
            disk.place(offset, esp.clone())?;
        }
        Ok(Frame { disk, seed_offset })
    }

    /// The seed's place in the image, for a frame of this plan. `state`: the digests of all bytes before it.
    pub fn seed_area(&self, frame: &Frame, identity: uuid::Uuid, base: Digest, state: State) -> Result<Area> {
        let behind = frame.seed_offset + seed::CAPACITY;
        let mut tail = vec![0; (frame.disk.size() - behind) as usize];
        frame.disk.read_at(&mut tail, behind)?;
        let places = Places { payload: 0, seed_block: (frame.seed_offset / BLOCK) as u32 };
        let seed = self.nodes.iter().position(|node| matches!(node.kind, NodeKind::Seed)).unwrap_or(0);
        let (own, above) = (self.attributes(seed), self.attributes(self.nodes[seed].parent));
        let own = Record { system_use: &own, ..self.directory_record(seed, b"\0", Some(&places)) };
        let parent = self.nodes[seed].parent;
        let above = Record { system_use: &above, ..self.directory_record(parent, b"\x01", Some(&places)) };
        let label = Label { identity, base, time: self.options.time, state, tail: Digest::of(&tail) };
        Ok(Area::new(label, frame.seed_offset, [own.encode(), above.encode()].concat()))
    }

    fn volume(&self, blocks: u32) -> Result<Vec<u8>> {
        if self.options.volume_id.len() > 32 {
            return Err(Error::build(format!("`{}` is too long for a volume id", self.options.volume_id)));
        }
        let root = Record { system_use: &[], ..self.directory_record(0, b"\0", None) };
        let volume = Volume {
            id: &self.options.volume_id,
            size: blocks,
            path_table_size: self.path_table_size,
            path_tables: self.path_tables,
            root: root.encode(),
            time: super::format::Time::new(self.options.time),
        };
        Ok(volume.encode())
    }

    fn directory_record<'a>(&self, index: usize, identifier: &'a [u8], places: Option<&Places>) -> Record<'a> {
        let node = &self.nodes[index];
        let (block, size) = match node.kind {
            NodeKind::Seed => (places.map_or(0, |places| places.seed_block + seed::RECORDS_BLOCK), BLOCK),
            _ => (node.block, node.blocks * BLOCK),
        };
        // A folder is never that large.
        let size = u32::try_from(size).unwrap_or(u32::MAX);
        Record { identifier, block, size, time: self.time(index), flags: FLAG_DIRECTORY, system_use: &[] }
    }

    /// 9.4.
    fn path_table(&self, big: bool, places: &Places) -> Vec<u8> {
        let mut out = Vec::new();
        for index in &self.directories {
            let node = &self.nodes[*index];
            let block = self.directory_record(*index, b"", Some(places)).block;
            let parent = self.directories.iter().position(|at| *at == node.parent).unwrap_or(0) as u16 + 1;
            let identifier = if node.identifier.is_empty() { &b"\0"[..] } else { &node.identifier };
            out.extend([identifier.len() as u8, 0]);
            out.extend(if big { block.to_be_bytes() } else { block.to_le_bytes() });
            out.extend(if big { parent.to_be_bytes() } else { parent.to_le_bytes() });
            out.extend(identifier);
            out.resize(out.len().next_multiple_of(2), 0);
        }
        out
    }

    fn boot_entries(&self) -> Vec<BootEntry> {
        let of = |wanted: fn(&Data) -> bool| {
            self.nodes.iter().find(|node| matches!(&node.kind, NodeKind::File(data) if wanted(data)))
        };
        let mut entries = Vec::new();
        if let Some(bios) = of(|data| matches!(data, Data::Bios)) {
            // The CD loader loads the rest.
            entries.push(BootEntry { platform: 0, block: bios.block, sectors: 4 });
        }
        if let Some(esp) = of(|data| matches!(data, Data::Esp)) {
            // 0 stands for all that follows (UEFI 2.10, 13.3.2.1).
            let sectors = u16::try_from(esp.size.div_ceil(SECTOR)).unwrap_or(0);
            entries.push(BootEntry { platform: 0xEF, block: esp.block, sectors });
        }
        entries
    }

    /// The core image, told where it lies.
    fn bios_image(&self, block: u32) -> Result<Vec<u8>> {
        let bios = self.options.bios.as_ref();
        let mut image = bios.map(|bios| bios.core.clone()).unwrap_or_default();
        if image.len() < LOADER_TARGET + 12 {
            return Err(Error::build("GRUB's core image for CDs is too short"));
        }
        let rest = u64::from(block) * (BLOCK / SECTOR) + 5;
        image[LOADER_TARGET..LOADER_TARGET + 8].copy_from_slice(&rest.to_le_bytes());
        let word = |bytes: &[u8]| {
            let mut word = [0; 4];
            word[..bytes.len()].copy_from_slice(bytes);
            u32::from_le_bytes(word)
        };
        let sum = image[INFO_SUM_FROM..].chunks(4).map(word).fold(0, u32::wrapping_add);
        let table = [FIRST_DESCRIPTOR as u32, block, image.len() as u32, sum];
        for (place, value) in image[INFO_TABLE..].chunks_exact_mut(4).zip(table) {
            place.copy_from_slice(&value.to_le_bytes());
        }
        image[INFO_TABLE + 16..INFO_SUM_FROM].fill(0);
        Ok(image)
    }

    /// MBR and GPT. The MBR has the EFI system partition too: firmware that knows no GPT finds it, and one with a BIOS that
    /// wants an active partition has one.
    fn tables(&self, size: u64) -> Result<Vec<Extent>> {
        let boot_code = match (&self.options.bios, self.bios_block()) {
            (Some(bios), Some(block)) => {
                if bios.hybrid.len() != SECTOR as usize || bios.hybrid[510..] != [0x55, 0xAA] {
                    return Err(Error::build("GRUB's boot_hybrid.img is not a boot sector"));
                }
                let mut code = bios.hybrid[..440].to_vec();
                let loader = u64::from(block) * (BLOCK / SECTOR) + 4;
                code[HYBRID_TARGET..HYBRID_TARGET + 8].copy_from_slice(&loader.to_le_bytes());
                code
            }
            _ => Vec::new(),
        };
        let esp = self.esp_offset.zip(self.options.esp.as_ref()).map(|(offset, esp)| gpt::Partition {
            type_guid: ESP,
            guid: self.options.esp_guid,
            first_lba: offset / SECTOR,
            last_lba: (offset + esp.size()) / SECTOR - 1,
            attributes: 0,
            name: "EFI".to_owned(),
        });
        let partitions: Vec<gpt::Partition> = esp.into_iter().collect();
        let table = gpt::Table { disk_size: size, disk_guid: self.options.disk_guid, partitions, boot_code };
        let mut tables = table.layout()?;
        if let Some(esp) = table.partitions.first() {
            hybrid_mbr(&mut tables.primary, esp)?;
        }
        Ok(tables.extents().into())
    }

    fn bios_block(&self) -> Option<u32> {
        let found = self.nodes.iter().find(|node| matches!(node.kind, NodeKind::File(Data::Bios)));
        found.map(|node| node.block)
    }
}

/// The protective entry ends before the partition, which gets the second one, active, of type 0xEF.
fn hybrid_mbr(primary: &mut [u8], esp: &gpt::Partition) -> Result<()> {
    let too_far = |_| Error::build("the EFI system partition lies beyond 2 TiB");
    let first = u32::try_from(esp.first_lba).map_err(too_far)?;
    let count = u32::try_from(esp.last_lba + 1 - esp.first_lba).map_err(too_far)?;
    let (protective, second) = primary[446..478].split_at_mut(16);
    protective[12..16].copy_from_slice(&(first - 1).to_le_bytes());
    second[0] = 0x80;
    second[1..4].copy_from_slice(&[0xFE, 0xFF, 0xFF]);
    second[4] = 0xEF;
    second[5..8].copy_from_slice(&[0xFE, 0xFF, 0xFF]);
    second[8..12].copy_from_slice(&first.to_le_bytes());
    second[12..16].copy_from_slice(&count.to_le_bytes());
    Ok(())
}

/// The records of a folder in whole blocks: itself, its parent, its children; as many blocks as were given out.
pub fn records(plan: &Plan, index: usize, places: &Places) -> Result<Vec<u8>> {
    let node = &plan.nodes[index];
    let NodeKind::Directory(children) = &node.kind else { return Ok(Vec::new()) };
    let mut out = Records::default();
    let mut own = plan.attributes(index);
    if index == 0 {
        own = [&SP[..], &own, &extension_reference()].concat();
    }
    let own = Record { system_use: &own, ..plan.directory_record(index, b"\0", Some(places)) };
    out.push(own.encode());
    let above = plan.attributes(node.parent);
    let above = Record { system_use: &above, ..plan.directory_record(node.parent, b"\x01", Some(places)) };
    out.push(above.encode());
    for child in children {
        let system_use = plan.system_use(*child)?;
        let node = &plan.nodes[*child];
        if node.is_directory() {
            let record = plan.directory_record(*child, &node.identifier, Some(places));
            out.push(Record { system_use: &system_use, ..record }.encode());
            continue;
        }
        let size = if matches!(node.kind, NodeKind::File(Data::Payload)) { places.payload } else { node.size };
        let mut start = 0;
        loop {
            let length = (size - start).min(LARGEST_EXTENT);
            let more = start + length < size;
            let record = Record {
                identifier: &node.identifier,
                block: node.block + (start / BLOCK) as u32,
                size: length as u32,
                time: plan.time(*child),
                flags: if more { FLAG_MORE_EXTENTS } else { 0 },
                system_use: &system_use,
            };
            out.push(record.encode());
            start += length;
            if !more {
                break;
            }
        }
    }
    let mut out = out.bytes;
    let whole = (out.len() as u64).next_multiple_of(BLOCK).max(node.blocks * BLOCK);
    out.resize(whole as usize, 0);
    Ok(out)
}

/// 6.8.1.1: a record does not cross the end of a block.
#[derive(Default)]
pub struct Records {
    pub bytes: Vec<u8>,
}

impl Records {
    pub fn push(&mut self, record: Vec<u8>) {
        let used = self.bytes.len() % BLOCK as usize;
        if used + record.len() > BLOCK as usize {
            self.bytes.resize(self.bytes.len().next_multiple_of(BLOCK as usize), 0);
        }
        self.bytes.extend(record);
    }
}
