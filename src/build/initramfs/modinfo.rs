//! What a kernel module says about itself: the `.modinfo` section of an ELF file.
//!
//! Owns: [`values`], as `modinfo -F` of kmod. Sources: System V ABI, "ELF-64 Object File Format" 1.5 (sections 3 and 4);
//! `include/linux/moduleparam.h` of Linux for the section's form, `key=value` strings that end in NUL. Modules come from
//! packages: every number in them is checked.

use std::io::Read;

/// A module, unpacked. The largest of any supported kernel has some tens of MiB.
const LIMIT: u64 = 512 << 20;

/// The values of `key` in the order of the section. `None`: not a module that is understood here.
pub fn values(module: &[u8], key: &str) -> Option<Vec<Vec<u8>>> {
    let unpacked;
    let module = match unpack(module)? {
        Some(bytes) => {
            unpacked = bytes;
            &unpacked
        }
        None => module,
    };
    let section = section(module, b".modinfo")?;
    let prefix = format!("{key}=");
    let strings = section.split(|byte| *byte == 0);
    Some(strings.filter_map(|string| string.strip_prefix(prefix.as_bytes()).map(<[u8]>::to_vec)).collect())
}

/// `Some(None)`: not compressed. The magic numbers are those of the formats (RFC 8878 3.1.1, xz 2.1.1.1, RFC 1952 2.3.1).
fn unpack(module: &[u8]) -> Option<Option<Vec<u8>>> {
    fn all(reader: impl Read) -> Option<Option<Vec<u8>>> {
        let mut bytes = Vec::new();
        reader.take(LIMIT).read_to_end(&mut bytes).ok()?;
        Some(Some(bytes))
    }
    match module {
        [0x7F, b'E', b'L', b'F', ..] => Some(None),
        [0x28, 0xB5, 0x2F, 0xFD, ..] => all(zstd::Decoder::new(module).ok()?),
        [0xFD, b'7', b'z', b'X', b'Z', 0, ..] => all(liblzma::read::XzDecoder::new(module)),
        [0x1F, 0x8B, ..] => all(flate2::read::GzDecoder::new(module)),
        _ => None,
    }
}

/// A section of a little-endian ELF-64 file by its name.
fn section<'a>(file: &'a [u8], wanted: &[u8]) -> Option<&'a [u8]> {
    // e_ident: EI_CLASS 4 = ELFCLASS64, EI_DATA 5 = ELFDATA2LSB.
    if file.get(..6)? != [0x7F, b'E', b'L', b'F', 2, 1] {
        return None;
    }
    // e_shoff 0x28, e_shentsize 0x3A, e_shnum 0x3C, e_shstrndx 0x3E.
    let table = number(file, 0x28, 8)?;
    let (size, count, names) = (number(file, 0x3A, 2)?, number(file, 0x3C, 2)?, number(file, 0x3E, 2)?);
    let header = |index: usize| {
        let start = table.checked_add(index.checked_mul(size)?)?;
        file.get(start..start.checked_add(0x40)?)
    };
    // sh_name 0x00, sh_offset 0x18, sh_size 0x20.
    let content = |header: &[u8]| {
        let start = number(header, 0x18, 8)?;
        file.get(start..start.checked_add(number(header, 0x20, 8)?)?)
    };
    let names = content(header(names)?)?;
    for index in 0..count {
        let header = header(index)?;
        let name = names.get(number(header, 0, 4)?..)?;
        if name.split(|byte| *byte == 0).next() == Some(wanted) {
            return content(header);
        }
    }
    None
}

fn number(bytes: &[u8], at: usize, length: usize) -> Option<usize> {
    let mut value = [0; 8];
    value[..length].copy_from_slice(bytes.get(at..at + length)?);
    usize::try_from(u64::from_le_bytes(value)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ELF-64 file with a name table and one more section.
    fn elf(name: &str, content: &[u8]) -> Vec<u8> {
        let names = format!("\0.shstrtab\0{name}\0");
        let mut file = vec![0; 0x40];
        file[..6].copy_from_slice(&[0x7F, b'E', b'L', b'F', 2, 1]);
        let mut headers = vec![0; 0x40];
        for (at, bytes) in [(1, names.as_bytes()), (11, content)] {
            let mut header = vec![0; 0x40];
            header[..4].copy_from_slice(&(at as u32).to_le_bytes());
            header[0x18..0x20].copy_from_slice(&(file.len() as u64).to_le_bytes());
            header[0x20..0x28].copy_from_slice(&(bytes.len() as u64).to_le_bytes());
            headers.extend(header);
            file.extend(bytes);
        }
        let table = file.len() as u64;
        file[0x28..0x30].copy_from_slice(&table.to_le_bytes());
        file[0x3A..0x40].copy_from_slice(&[0x40, 0, 3, 0, 1, 0]);
        file.extend(headers);
        file
    }

    const INFO: &[u8] = b"license=GPL\0firmware=a/one.bin\0depends=\0firmware=two.bin\0firmwarex=no\0";

    #[test]
    fn values_in_order_from_every_packing() {
        let file = elf(".modinfo", INFO);
        let packed = zstd::encode_all(file.as_slice(), 1).unwrap();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut gzip, &file).unwrap();
        for file in [file, packed, gzip.finish().unwrap()] {
            assert_eq!(values(&file, "firmware").unwrap(), [b"a/one.bin".to_vec(), b"two.bin".to_vec()]);
            assert!(values(&file, "softdep").unwrap().is_empty());
        }
    }

    #[test]
    fn what_is_not_a_module_is_left_to_others() {
        let file = elf(".text", INFO);
        assert!(values(&file, "firmware").is_none());
        assert!(values(b"\x7fELF", "firmware").is_none());
        let file = elf(".modinfo", INFO);
        for length in 0..file.len() {
            // No panic, whatever is cut off; the section itself is complete before the headers are.
            assert!(values(&file[..length], "firmware").is_none(), "cut at {length}");
        }
        for at in 0..0x40 {
            let mut file = file.clone();
            file[at] ^= 0xFF;
            let _ = values(&file, "firmware");
        }
    }
}
