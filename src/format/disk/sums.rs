//! Checksums of a file while it is written, beside the writing.
//!
//! Owns: [`Digests`], [`Sums`], [`State`] (both digests in the middle of a file), [`Sums::of`], [`while_writing`], [`Tee`]. One thread
//! computes both digests block by block: each step of MD5 waits for the one before, which leaves the processor time for
//! SHA-256 (FIPS 180-4), so that the two take hardly longer than MD5 alone.

use std::io::{Read, Write};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use sha2::compress256;
use sha2::digest::generic_array::GenericArray;

use super::md5;
use crate::error::{Context, Error, Result};
use crate::interrupt;

/// Pieces that may wait to be hashed.
const QUEUE: usize = 8;
const BLOCK: usize = 64;
/// FIPS 180-4, 5.3.3.
const SHA256_START: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

/// Which digests are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digests {
    pub sha256: bool,
    pub md5: bool,
}

impl Digests {
    pub const BOTH: Digests = Digests { sha256: true, md5: true };
    pub const MD5: Digests = Digests { sha256: false, md5: true };
    pub const NONE: Digests = Digests { sha256: false, md5: false };
}

impl Default for Digests {
    fn default() -> Self {
        Self::BOTH
    }
}

/// The digests of a whole file, as far as they are wanted, and its size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sums {
    pub sha256: Option<[u8; 32]>,
    pub md5: Option<[u8; 16]>,
    pub size: u64,
}

impl Sums {
    /// Empty where it was not wanted.
    pub fn md5_hex(&self) -> String {
        self.md5.map(hex::encode).unwrap_or_default()
    }

    /// Reads all there is.
    pub fn of(mut file: impl Read, digests: Digests) -> Result<Sums> {
        let mut hasher = Hasher::new(State::start(digests));
        let mut buffer = vec![0; 1 << 20];
        loop {
            interrupt::check()?;
            match file.read(&mut buffer).context("reading the file")? {
                0 => return Ok(hasher.finish()),
                length => hasher.update(&buffer[..length]),
            }
        }
    }
}

impl Sums {
    /// Of a file of which the beginning was hashed before, and the rest is here.
    pub fn resume(state: State, rest: &[u8]) -> Result<Sums> {
        let mut hasher = Hasher::new(state);
        for piece in rest.chunks(1 << 20) {
            interrupt::check()?;
            hasher.update(piece);
        }
        Ok(hasher.finish())
    }
}

/// Both digests after the first `length` bytes of a file, a multiple of 64.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State {
    digests: Digests,
    sha256: [u32; 8],
    md5: [u32; 4],
    length: u64,
}

impl State {
    /// Bytes of the encoded form.
    const ENCODED: usize = 56;

    /// Before the first byte.
    pub fn start(digests: Digests) -> State {
        State { digests, sha256: SHA256_START, md5: md5::START, length: 0 }
    }

    /// After these bytes, a multiple of 64.
    pub fn of(bytes: &[u8]) -> Result<State> {
        if bytes.len() % BLOCK != 0 {
            return Err(Error::build("checksums can be resumed after whole blocks only"));
        }
        let mut state = State::start(Digests::BOTH);
        state.update(bytes);
        Ok(state)
    }

    pub fn length(&self) -> u64 {
        self.length
    }

    /// Of both digests, else nothing.
    pub fn encode(&self) -> Option<Vec<u8>> {
        if self.digests != Digests::BOTH {
            return None;
        }
        let words = self.sha256.iter().chain(&self.md5).flat_map(|word| word.to_le_bytes());
        Some(words.chain(self.length.to_le_bytes()).collect())
    }

    pub fn decode(bytes: &[u8]) -> Option<State> {
        if bytes.len() != Self::ENCODED {
            return None;
        }
        let mut words = bytes.chunks_exact(4).map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
        let mut next = || words.next().unwrap_or_default();
        let (sha256, md5) = (std::array::from_fn(|_| next()), std::array::from_fn(|_| next()));
        let length = u64::from(next()) | u64::from(next()) << 32;
        (length % BLOCK as u64 == 0).then_some(State { digests: Digests::BOTH, sha256, md5, length })
    }

    /// Whole blocks.
    fn update(&mut self, bytes: &[u8]) {
        self.length += bytes.len() as u64;
        let Digests { sha256, md5 } = self.digests;
        if !sha256 && !md5 {
            return;
        }
        for block in bytes.chunks_exact(BLOCK) {
            if let (true, Ok(block)) = (md5, block.try_into()) {
                md5::compress(&mut self.md5, block);
            }
            if sha256 {
                compress256(&mut self.sha256, std::slice::from_ref(GenericArray::from_slice(block)));
            }
        }
    }
}

/// The MD5 of bytes that are all there, in hexadecimal: what dpkg and names of partitions ask for.
pub fn md5_hex(bytes: &[u8]) -> String {
    let mut hasher = Hasher::new(State::start(Digests::MD5));
    hasher.update(bytes);
    hasher.finish().md5_hex()
}

/// Hashes bytes in pieces of any length.
pub struct Hasher {
    state: State,
    /// Less than a block.
    pending: Vec<u8>,
}

impl Hasher {
    pub fn new(state: State) -> Hasher {
        Hasher { state, pending: Vec::with_capacity(BLOCK) }
    }

    pub fn update(&mut self, mut bytes: &[u8]) {
        if !self.pending.is_empty() {
            let (head, rest) = bytes.split_at(bytes.len().min(BLOCK - self.pending.len()));
            self.pending.extend_from_slice(head);
            bytes = rest;
            if self.pending.len() == BLOCK {
                self.state.update(&self.pending);
                self.pending.clear();
            }
        }
        let (blocks, rest) = bytes.split_at(bytes.len() - bytes.len() % BLOCK);
        self.state.update(blocks);
        self.pending.extend_from_slice(rest);
    }

    /// One bit, zeros, and the length in bits, which the two write in opposite orders.
    pub fn finish(mut self) -> Sums {
        let size = self.state.length + self.pending.len() as u64;
        let mut end = std::mem::take(&mut self.pending);
        end.push(0x80);
        end.resize((end.len() + 8).next_multiple_of(BLOCK) - 8, 0);
        let bits = size.wrapping_mul(8);
        let (mut sha256, mut md5) = (self.state, self.state);
        sha256.update(&[&end[..], &bits.to_be_bytes()].concat());
        md5.update(&[&end[..], &bits.to_le_bytes()].concat());
        let (mut one, mut two) = ([0; 32], [0; 16]);
        let bytes = sha256.sha256.iter().flat_map(|word| word.to_be_bytes());
        one.iter_mut().zip(bytes).for_each(|(to, byte)| *to = byte);
        let bytes = md5.md5.iter().flat_map(|word| word.to_le_bytes());
        two.iter_mut().zip(bytes).for_each(|(to, byte)| *to = byte);
        let Digests { sha256, md5 } = self.state.digests;
        Sums { sha256: sha256.then_some(one), md5: md5.then_some(two), size }
    }
}

/// Takes the pieces of a file, in order.
pub struct Pieces {
    queue: SyncSender<Vec<u8>>,
}

impl Pieces {
    pub fn next(&mut self, piece: Vec<u8>) -> Result<()> {
        self.queue.send(piece).map_err(|_| Error::build("computing checksums stopped unexpectedly"))
    }
}

/// Buffers that are free again: their memory need not be asked for anew.
#[derive(Debug, Default)]
pub struct Spare(Mutex<Vec<Vec<u8>>>);

impl Spare {
    /// A buffer of that length with anything in it.
    pub fn take(&self, length: usize) -> Vec<u8> {
        let mut buffer = self.lock().pop().unwrap_or_default();
        buffer.resize(length, 0);
        buffer
    }

    pub fn give(&self, buffer: Vec<u8>) {
        self.lock().push(buffer);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Vec<u8>>> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Writes, and hands over what was written.
pub struct Tee<'a, W> {
    pub to: W,
    pub pieces: &'a mut Pieces,
    pub spare: &'a Spare,
}

impl<W: Write> Write for Tee<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.to.write(bytes)?;
        let mut piece = self.spare.take(written);
        piece.copy_from_slice(&bytes[..written]);
        self.pieces.next(piece).map_err(std::io::Error::other)?;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.to.flush()
    }
}

/// What there is to know of a file that was hashed from some place on.
pub struct Hashed {
    pub sums: Sums,
    /// The state at each of the places that were asked for.
    pub states: Vec<State>,
}

/// Runs `write`, which has to hand over all pieces of the file from `start` on, and hashes them meanwhile. `marks`
/// are places behind `start` (multiples of 64, ascending) whose states are wanted.
pub fn while_writing(
    start: State,
    marks: &[u64],
    spare: &Spare,
    write: impl FnOnce(&mut Pieces) -> Result<()>,
) -> Result<Hashed> {
    std::thread::scope(|scope| {
        let (queue, pieces) = sync_channel(QUEUE);
        let hashing = scope.spawn(move || hash(start, marks, &pieces, spare));
        let mut pieces = Pieces { queue };
        let written = write(&mut pieces);
        drop(pieces);
        let hashed = hashing.join().map_err(|_| Error::build("computing checksums stopped unexpectedly"));
        written?;
        hashed
    })
}

fn hash(start: State, marks: &[u64], pieces: &Receiver<Vec<u8>>, spare: &Spare) -> Hashed {
    let mut hasher = Hasher::new(start);
    let (mut at, mut states) = (start.length, Vec::with_capacity(marks.len()));
    for piece in pieces {
        let mut rest = &piece[..];
        while let Some(mark) = marks.get(states.len()).filter(|mark| **mark <= at + rest.len() as u64) {
            let (before, behind) = rest.split_at(mark.saturating_sub(at) as usize);
            hasher.update(before);
            at += before.len() as u64;
            states.push(hasher.state);
            rest = behind;
        }
        hasher.update(rest);
        at += rest.len() as u64;
        spare.give(piece);
    }
    Hashed { sums: hasher.finish(), states }
}

#[cfg(test)]
mod tests {
    use md5_oracle::Digest as _;
    use proptest::prelude::*;

    use super::super::testing::noise;
    use super::*;

    extern crate md5 as md5_oracle;

    fn sums(pieces: &[&[u8]]) -> Sums {
        let all = |to: &mut Pieces| pieces.iter().try_for_each(|piece| to.next(piece.to_vec()));
        while_writing(State::start(Digests::BOTH), &[], &Spare::default(), all).unwrap().sums
    }

    #[test]
    fn sums_of_known_bytes() {
        let sums = sums(&[b"a", b"", b"bc"]);
        // FIPS 180-4 and RFC 1321 test vectors.
        assert_eq!(
            hex::encode(sums.sha256.unwrap()),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(hex::encode(sums.md5.unwrap()), "900150983cd24fb0d6963f7d28e17f72");
        assert_eq!(sums.size, 3);
        let failing = while_writing(State::start(Digests::BOTH), &[], &Spare::default(), |_| Err(Error::build("full")));
        assert!(failing.is_err());
    }

    #[test]
    fn a_tee_hashes_what_it_writes() {
        let (bytes, mut file, spare) = (noise(300_000, 3), Vec::new(), Spare::default());
        let hashed = while_writing(State::start(Digests::BOTH), &[], &spare, |pieces| {
            let mut tee = Tee { to: &mut file, pieces, spare: &spare };
            bytes.chunks(70_001).try_for_each(|chunk| tee.write_all(chunk)).context("writing")
        });
        assert_eq!(hashed.unwrap().sums, Sums::of(&file[..], Digests::BOTH).unwrap());
        assert!(file == bytes);
    }

    #[test]
    fn states_in_the_middle_go_on_to_the_same_sums() {
        let bytes = noise(100_000, 5);
        let whole = Sums::of(&bytes[..], Digests::BOTH).unwrap();
        let marks = [64, 128, 50_048, 99_968];
        let give = |from: usize| {
            let bytes = &bytes;
            move |to: &mut Pieces| bytes[from..].chunks(777).try_for_each(|piece| to.next(piece.to_vec()))
        };
        let hashed = while_writing(State::start(Digests::BOTH), &marks, &Spare::default(), give(0)).unwrap();
        assert_eq!(hashed.sums, whole);
        assert_eq!(hashed.states.iter().map(State::length).collect::<Vec<_>>(), marks);
        for state in hashed.states {
            let again = State::decode(&state.encode().unwrap()).unwrap();
            assert_eq!(again, state);
            let rest = while_writing(again, &[], &Spare::default(), give(state.length() as usize)).unwrap();
            assert_eq!(rest.sums, whole);
        }
        assert_eq!(State::decode(&[0; 55]), None);
        assert_eq!(State::decode(&[1; 56]), None, "not a multiple of a block");
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn as_other_implementations_say(length in 0usize..1000, cut in 0usize..1000, seed: u64) {
            let bytes = noise(length, seed);
            let (one, two) = bytes.split_at(cut.min(length));
            let sums = sums(&[one, two]);
            prop_assert_eq!(&sums.sha256.unwrap()[..], &sha2::Sha256::digest(&bytes)[..]);
            prop_assert_eq!(&sums.md5.unwrap()[..], &md5_oracle::Md5::digest(&bytes)[..]);
            prop_assert_eq!(sums.size, length as u64);
            let only = |sha256, md5| Sums::of(&bytes[..], Digests { sha256, md5 }).unwrap();
            prop_assert_eq!(only(true, false), Sums { md5: None, ..sums });
            prop_assert_eq!(only(false, true), Sums { sha256: None, ..sums });
            prop_assert_eq!(only(false, false), Sums { sha256: None, md5: None, ..sums });
        }
    }
}
