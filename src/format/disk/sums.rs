//! Checksums of a file while it is written, beside the writing.
//!
//! Owns: [`Sums`] and [`while_writing`]. The two digests are computed by a thread each, in the order of the file, so
//! the file is not read again afterwards.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use md5::Md5;
use sha2::Sha256;

use crate::error::{Error, Result};

/// Pieces that may wait to be hashed.
const QUEUE: usize = 8;

/// The digests of a whole file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sums {
    pub sha256: [u8; 32],
    pub md5: [u8; 16],
    pub size: u64,
}

/// Takes the pieces of a file, in order.
pub struct Pieces {
    queues: [SyncSender<Arc<Vec<u8>>>; 2],
    size: u64,
}

impl Pieces {
    pub fn next(&mut self, piece: Vec<u8>) -> Result<()> {
        self.size += piece.len() as u64;
        let piece = Arc::new(piece);
        for queue in &self.queues {
            queue.send(piece.clone()).map_err(|_| Error::build("computing checksums stopped unexpectedly"))?;
        }
        Ok(())
    }
}

/// Runs `write`, which has to hand all pieces of the file over, and hashes them meanwhile.
pub fn while_writing(write: impl FnOnce(&mut Pieces) -> Result<()>) -> Result<Sums> {
    std::thread::scope(|scope| {
        let ((one, first), (two, second)) = (sync_channel(QUEUE), sync_channel(QUEUE));
        let sha256 = scope.spawn(move || hash::<Sha256>(&first));
        let md5 = scope.spawn(move || hash::<Md5>(&second));
        let mut pieces = Pieces { queues: [one, two], size: 0 };
        let written = write(&mut pieces);
        let size = pieces.size;
        drop(pieces);
        let stopped = |_| Error::build("computing checksums stopped unexpectedly");
        let (sha256, md5) = (sha256.join().map_err(stopped), md5.join().map_err(stopped));
        written?;
        Ok(Sums { sha256: sha256?.into(), md5: md5?.into(), size })
    })
}

fn hash<D: md5::Digest>(pieces: &Receiver<Arc<Vec<u8>>>) -> md5::digest::Output<D> {
    let mut hash = D::new();
    for piece in pieces {
        hash.update(&piece[..]);
    }
    hash.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_of_known_bytes() {
        let sums = while_writing(|pieces| {
            pieces.next(b"a".to_vec())?;
            pieces.next(Vec::new())?;
            pieces.next(b"bc".to_vec())
        })
        .unwrap();
        // FIPS 180-4 and RFC 1321 test vectors.
        assert_eq!(hex::encode(sums.sha256), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(hex::encode(sums.md5), "900150983cd24fb0d6963f7d28e17f72");
        assert_eq!(sums.size, 3);
        assert!(while_writing(|_| Err(Error::build("full"))).is_err());
    }
}
