//! The program as it goes into an image: what the kernel and the loader read of it, without symbols and debug data.
//!
//! Owns: [`loadable`]. Follows the System V ABI, "ELF Header" and "Program Header": sections are for linkers and debuggers,
//! and nothing behind the last byte that a program header names is ever loaded.

/// The bytes that are loaded. What is no 64-bit little-endian ELF file comes back as it is.
pub(super) fn loadable(program: &[u8]) -> Vec<u8> {
    shortened(program).unwrap_or_else(|| program.to_vec())
}

fn shortened(program: &[u8]) -> Option<Vec<u8>> {
    if program.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let number = |at: usize, bytes: usize| -> Option<u64> {
        let mut value = [0; 8];
        value.get_mut(..bytes)?.copy_from_slice(program.get(at..at.checked_add(bytes)?)?);
        Some(u64::from_le_bytes(value))
    };
    // e_phoff, e_phentsize, e_phnum
    let (table, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
    let mut end = table.checked_add(size.checked_mul(count)?)?.max(64);
    for index in 0..count {
        let header = usize::try_from(table.checked_add(index.checked_mul(size)?)?).ok()?;
        // p_offset, p_filesz
        end = end.max(number(header.checked_add(8)?, 8)?.checked_add(number(header.checked_add(32)?, 8)?)?);
    }
    let mut kept = program.get(..usize::try_from(end).ok()?)?.to_vec();
    // e_shoff; e_shnum and e_shstrndx: there are no sections.
    kept.get_mut(40..48)?.fill(0);
    kept.get_mut(60..64)?.fill(0);
    Some(kept)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::executable;

    #[test]
    fn a_shortened_program_runs() {
        // A copy of a program that is always there; this test's own holds the tests.
        let Ok(program) = std::fs::read("/usr/bin/true").or_else(|_| std::fs::read("/bin/true")) else {
            return println!("skipped: there is no `true` here");
        };
        let short = loadable(&program);
        assert!(short.len() <= program.len() && short[..6] == program[..6]);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("true");
        executable(&path, &short);
        assert!(std::process::Command::new(&path).status().unwrap().success());
    }

    #[test]
    fn what_is_broken_stays_as_it_is() {
        for bytes in [&b""[..], b"#!/bin/sh", b"\x7fELF\x02\x01", &[0x7f, b'E', b'L', b'F', 2, 1, 1]] {
            assert_eq!(loadable(bytes), bytes);
        }
        let mut wild = vec![0xff; 64];
        wild[..6].copy_from_slice(b"\x7fELF\x02\x01");
        assert_eq!(loadable(&wild), wild);
    }
}
