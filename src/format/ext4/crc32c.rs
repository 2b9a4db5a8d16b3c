//! CRC-32C (Castagnoli), as ext4 uses it: the running value goes in and out without inversion, so that checksums
//! can be chained (kernel documentation, filesystems/ext4, "Checksums").

/// The polynomial with its bits reversed.
const POLYNOMIAL: u32 = 0x82F6_3B78;

/// The first table is for one byte, the others for a byte with so many zeros behind it: eight bytes at a time.
static TABLES: [[u32; 256]; 8] = {
    let mut tables = [[0; 256]; 8];
    let mut index = 0;
    while index < 256 {
        let mut value = index as u32;
        let mut bit = 0;
        while bit < 8 {
            value = if value & 1 == 1 { value >> 1 ^ POLYNOMIAL } else { value >> 1 };
            bit += 1;
        }
        tables[0][index] = value;
        index += 1;
    }
    let mut table = 1;
    while table < 8 {
        let mut index = 0;
        while index < 256 {
            let before = tables[table - 1][index];
            tables[table][index] = before >> 8 ^ tables[0][(before & 0xFF) as usize];
            index += 1;
        }
        table += 1;
    }
    tables
};

pub fn crc32c(seed: u32, bytes: &[u8]) -> u32 {
    let mut words = bytes.chunks_exact(8);
    let mut crc = seed;
    for word in &mut words {
        let low = u32::from_le_bytes([word[0], word[1], word[2], word[3]]) ^ crc;
        let high = u32::from_le_bytes([word[4], word[5], word[6], word[7]]);
        crc = 0;
        for byte in 0..4 {
            crc ^= TABLES[7 - byte][(low >> (8 * byte) & 0xFF) as usize];
            crc ^= TABLES[3 - byte][(high >> (8 * byte) & 0xFF) as usize];
        }
    }
    words.remainder().iter().fold(crc, |crc, byte| crc >> 8 ^ TABLES[0][(crc as u8 ^ byte) as usize])
}

#[cfg(test)]
mod tests {
    #[test]
    fn check_value() {
        assert_eq!(!super::crc32c(!0, b"123456789"), 0xE306_9283);
        // In pieces of any length, as in one piece.
        let bytes: Vec<u8> = (0..100).collect();
        for cut in 0..bytes.len() {
            let parts = super::crc32c(super::crc32c(7, &bytes[..cut]), &bytes[cut..]);
            assert_eq!(parts, super::crc32c(7, &bytes));
        }
    }
}
