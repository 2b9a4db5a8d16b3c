//! MD5's compression function: RFC 1321.
//!
//! Owns: [`compress`] and [`START`]. Here, because the state in the middle of a file is kept in the cache and the library
//! does not give its own away. What it hashes is for tools that still ask for MD5; nothing here relies on it.
//!
//! A step waits for the one before, so the time is that of the longest chain of instructions, and the order of additions
//! decides. Compilers change it, which costs a fifth: [`settled`] forbids that.

/// The state before the first block.
pub const START: [u32; 4] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476];

/// RFC 1321, 3.4: the integer part of 2^32 times |sin(i)|, i from 1.
const T: [u32; 64] = [
    0xd76a_a478,
    0xe8c7_b756,
    0x2420_70db,
    0xc1bd_ceee,
    0xf57c_0faf,
    0x4787_c62a,
    0xa830_4613,
    0xfd46_9501,
    0x6980_98d8,
    0x8b44_f7af,
    0xffff_5bb1,
    0x895c_d7be,
    0x6b90_1122,
    0xfd98_7193,
    0xa679_438e,
    0x49b4_0821,
    0xf61e_2562,
    0xc040_b340,
    0x265e_5a51,
    0xe9b6_c7aa,
    0xd62f_105d,
    0x0244_1453,
    0xd8a1_e681,
    0xe7d3_fbc8,
    0x21e1_cde6,
    0xc337_07d6,
    0xf4d5_0d87,
    0x455a_14ed,
    0xa9e3_e905,
    0xfcef_a3f8,
    0x676f_02d9,
    0x8d2a_4c8a,
    0xfffa_3942,
    0x8771_f681,
    0x6d9d_6122,
    0xfde5_380c,
    0xa4be_ea44,
    0x4bde_cfa9,
    0xf6bb_4b60,
    0xbebf_bc70,
    0x289b_7ec6,
    0xeaa1_27fa,
    0xd4ef_3085,
    0x0488_1d05,
    0xd9d4_d039,
    0xe6db_99e5,
    0x1fa2_7cf8,
    0xc4ac_5665,
    0xf429_2244,
    0x432a_ff97,
    0xab94_23a7,
    0xfc93_a039,
    0x655b_59c3,
    0x8f0c_cc92,
    0xffef_f47d,
    0x8584_5dd1,
    0x6fa8_7e4f,
    0xfe2c_e6e0,
    0xa301_4314,
    0x4e08_11a1,
    0xf753_7e82,
    0xbd3a_f235,
    0x2ad7_d2bb,
    0xeb86_d391,
];

/// The value itself, computed as it stands: no additions are moved across. No instruction of its own.
#[inline(always)]
fn settled(value: u32) -> u32 {
    #[cfg(target_arch = "x86_64")]
    {
        let mut value = value;
        // SAFETY: a comment, and a register that stays as it is.
        unsafe { std::arch::asm!("/* {0:e} */", inout(reg) value, options(pure, nomem, nostack, preserves_flags)) };
        value
    }
    #[cfg(not(target_arch = "x86_64"))]
    value
}

// Each takes the sum so far: what does not wait for the step before (`x`) is added first.
#[inline(always)]
fn f(sum: u32, x: u32, y: u32, z: u32) -> u32 {
    sum.wrapping_add(((y ^ z) & x) ^ z)
}

#[inline(always)]
fn g(sum: u32, x: u32, y: u32, z: u32) -> u32 {
    // The two terms have no bit in common, so they may be added one after the other.
    settled(sum.wrapping_add(y & !z)).wrapping_add(x & z)
}

#[inline(always)]
fn h(sum: u32, x: u32, y: u32, z: u32) -> u32 {
    sum.wrapping_add(settled(y ^ z) ^ x)
}

#[inline(always)]
fn i(sum: u32, x: u32, y: u32, z: u32) -> u32 {
    sum.wrapping_add((x | !z) ^ y)
}

/// One step: `a = b + ((a + function(b, c, d) + word + T) <<< shift)`.
macro_rules! step {
    ($function:ident, $a:ident, $b:ident, $c:ident, $d:ident, $word:expr, $t:expr, $shift:expr) => {{
        let sum = settled($a.wrapping_add($word).wrapping_add(T[$t]));
        $a = $function(sum, $b, $c, $d).rotate_left($shift).wrapping_add($b)
    }};
}

/// Four steps; word and T of the first.
macro_rules! four {
    ($function:ident, $a:ident, $b:ident, $c:ident, $d:ident, $words:ident, $at:expr, $by:expr, $t:expr, $shifts:expr) => {
        step!($function, $a, $b, $c, $d, $words[$at % 16], $t, $shifts[0]);
        step!($function, $d, $a, $b, $c, $words[($at + $by) % 16], $t + 1, $shifts[1]);
        step!($function, $c, $d, $a, $b, $words[($at + 2 * $by) % 16], $t + 2, $shifts[2]);
        step!($function, $b, $c, $d, $a, $words[($at + 3 * $by) % 16], $t + 3, $shifts[3]);
    };
}

/// Sixteen steps: every word once, from `at` on in strides of `by`.
macro_rules! round {
    ($function:ident, $a:ident, $b:ident, $c:ident, $d:ident, $words:ident, $at:expr, $by:expr, $t:expr, $shifts:expr) => {
        four!($function, $a, $b, $c, $d, $words, $at, $by, $t, $shifts);
        four!($function, $a, $b, $c, $d, $words, $at + 4 * $by, $by, $t + 4, $shifts);
        four!($function, $a, $b, $c, $d, $words, $at + 8 * $by, $by, $t + 8, $shifts);
        four!($function, $a, $b, $c, $d, $words, $at + 12 * $by, $by, $t + 12, $shifts);
    };
}

/// Takes one block into the state.
pub fn compress(state: &mut [u32; 4], block: &[u8; 64]) {
    let mut words = [0; 16];
    for (word, bytes) in words.iter_mut().zip(block.chunks_exact(4)) {
        *word = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    }
    let [mut a, mut b, mut c, mut d] = *state;
    round!(f, a, b, c, d, words, 0, 1, 0, [7, 12, 17, 22]);
    round!(g, a, b, c, d, words, 1, 5, 16, [5, 9, 14, 20]);
    round!(h, a, b, c, d, words, 5, 3, 32, [4, 11, 16, 23]);
    round!(i, a, b, c, d, words, 0, 7, 48, [6, 10, 15, 21]);
    for (word, add) in state.iter_mut().zip([a, b, c, d]) {
        *word = word.wrapping_add(add);
    }
}
