//! The directory hash: half MD4 over chunks of 32 bytes (kernel documentation, filesystems/ext4, "Hash Tree
//! Directories"). Bytes count as signed, as on x86; the superblock says so.

/// The largest hash is kept free: it means the end of a directory.
const END: u32 = 0xFFFF_FFFE;

/// Major and minor hash of a name; the lowest bit of the major one is zero.
pub fn half_md4(name: &[u8], seed: &[u8; 16]) -> (u32, u32) {
    let mut state = [0x6745_2301, 0xEFCD_AB89, 0x98BA_DCFE, 0x1032_5476];
    if *seed != [0; 16] {
        for (word, bytes) in state.iter_mut().zip(seed.chunks_exact(4)) {
            *word = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        }
    }
    for start in (0..name.len()).step_by(32) {
        transform(&mut state, &pack(&name[start..]));
    }
    let major = state[1] & !1;
    (if major == END { END - 2 } else { major }, state[2])
}

/// Up to 32 bytes as eight words, filled up with the length of what is left of the name.
fn pack(rest: &[u8]) -> [u32; 8] {
    let length = rest.len() as u32;
    let pad = length | length << 8;
    let pad = pad | pad << 16;
    let mut words = [pad; 8];
    for (word, bytes) in words.iter_mut().zip(rest.chunks(4)) {
        for byte in bytes {
            *word = (*word << 8).wrapping_add(*byte as i8 as u32);
        }
    }
    words
}

type Mix = fn(u32, u32, u32) -> u32;

/// Three rounds of eight steps: function, constant, order of the words, shifts.
const ROUNDS: [(Mix, u32, [usize; 8], [u32; 4]); 3] = [
    (|x, y, z| z ^ (x & (y ^ z)), 0, [0, 1, 2, 3, 4, 5, 6, 7], [3, 7, 11, 19]),
    (|x, y, z| (x & y).wrapping_add((x ^ y) & z), 0x5A82_7999, [1, 3, 5, 7, 0, 2, 4, 6], [3, 5, 9, 13]),
    (|x, y, z| x ^ y ^ z, 0x6ED9_EBA1, [3, 7, 2, 6, 1, 5, 0, 4], [3, 9, 11, 15]),
];

fn transform(state: &mut [u32; 4], words: &[u32; 8]) {
    let [mut a, mut b, mut c, mut d] = *state;
    for (mix, constant, order, shifts) in ROUNDS {
        for (step, word) in order.iter().enumerate() {
            let sum = a.wrapping_add(mix(b, c, d)).wrapping_add(words[*word]).wrapping_add(constant);
            (a, b, c, d) = (d, sum.rotate_left(shifts[step % 4]), b, c);
        }
    }
    for (word, value) in state.iter_mut().zip([a, b, c, d]) {
        *word = word.wrapping_add(value);
    }
}
