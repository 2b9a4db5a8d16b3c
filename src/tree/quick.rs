//! A fast checksum against chance: bytes of the cache that have changed since they were last compared with their digest.
//!
//! Owns: [`Check`]. It runs at the speed of memory, about six times that of SHA-256, and a change goes unnoticed with a
//! probability of about 2^-64. It is no protection against somebody who wants to deceive: who can write into the cache
//! can write the digests there, too. The bytes of the result are part of files in the cache, so it must not change
//! within one version of their format.

/// A checksum of some bytes and their number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Check([u8; 16]);

/// Odd, with bits of both kinds everywhere: the fractional parts of the golden ratio and of roots of small primes.
const KEYS: [u64; 4] = [0x9e37_79b9_7f4a_7c15, 0xc2b2_ae3d_27d4_eb4f, 0x1656_67b1_9e37_79f9, 0xd6e8_feb8_6659_fd93];
const LANES: usize = KEYS.len();
const STRIPE: usize = 16 * LANES;

impl Check {
    pub fn of(bytes: &[u8]) -> Check {
        let mut lanes = KEYS;
        let stripes = bytes.chunks_exact(STRIPE);
        let mut last = [0; STRIPE];
        last[..stripes.remainder().len()].copy_from_slice(stripes.remainder());
        stripes.for_each(|stripe| take(&mut lanes, stripe));
        take(&mut lanes, &last);
        let length = bytes.len() as u64;
        let (mut low, mut high) = (length ^ KEYS[1], length ^ KEYS[2]);
        for lane in lanes {
            low = fold(low ^ lane, KEYS[0]) ^ lane;
            high = fold(high ^ lane.rotate_left(32), KEYS[3]) ^ low;
        }
        let mut check = [0; 16];
        check[..8].copy_from_slice(&low.to_le_bytes());
        check[8..].copy_from_slice(&high.to_le_bytes());
        Check(check)
    }

    pub fn from_bytes(bytes: [u8; 16]) -> Check {
        Check(bytes)
    }

    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

/// Two words into each lane.
fn take(lanes: &mut [u64; LANES], stripe: &[u8]) {
    for ((lane, key), pair) in lanes.iter_mut().zip(KEYS).zip(stripe.chunks_exact(16)) {
        let (one, two) = (word(&pair[..8]), word(&pair[8..]));
        // What comes before stays in, also where a factor is zero.
        *lane = fold(one ^ *lane, two ^ key) ^ lane.rotate_left(23).wrapping_add(one);
    }
}

/// Both halves of the product, so that every bit of either factor reaches all of the result.
fn fold(one: u64, two: u64) -> u64 {
    let product = u128::from(one) * u128::from(two);
    product as u64 ^ (product >> 64) as u64
}

fn word(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Raise the formats that hold such checksums when this fails: `clusters::FOLDER`.
    #[test]
    fn the_checksum_is_that_of_its_version() {
        let bytes: Vec<u8> = (0..1000u32).map(|at| (at * 7 % 251) as u8).collect();
        let checks = [Check::of(b""), Check::of(b"a"), Check::of(&bytes)].map(|check| hex::encode(check.0));
        let known = [
            "92d168a4dbbaca87d4d965b1fff28a0c",
            "ef8674cd1577bf50cd08489f92dcc90d",
            "cdcba8085a01c96d5afbe1ba52978236",
        ];
        assert_eq!(checks, known);
    }

    #[test]
    fn every_bit_and_the_length_count() {
        for length in [1, 63, 64, 65, 200] {
            let good: Vec<u8> = (0..length).map(|at| (at * at % 256) as u8).collect();
            let check = Check::of(&good);
            for bit in 0..length * 8 {
                let mut bad = good.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                assert_ne!(Check::of(&bad), check, "bit {bit} of {length} bytes");
            }
            assert_ne!(Check::of(&[&good[..], &[0]].concat()), check);
            assert_ne!(Check::of(&good[..length - 1]), check);
        }
        // Zeros in one word must not hide what the other holds, nor what came before.
        let zeros = |first: u8, last: u8| {
            let mut bytes = vec![0; 256];
            (bytes[0], bytes[255]) = (first, last);
            Check::of(&bytes)
        };
        assert_ne!(zeros(0, 0), zeros(1, 0));
        assert_ne!(zeros(0, 0), zeros(0, 1));
        assert_ne!(Check::of(&[0; 64]), Check::of(&[0; 128]));
    }
}
