//! Blocks of a disk through threads and out again in order.
//!
//! Owns: [`blocks`]. Thread k of n takes batches k, k + n, k + 2n ... and has a short queue of its own; the caller's
//! thread empties the queues in turn. That bounds the memory and fixes the order, so that what comes out is the same
//! for any n.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::DiskImage;
use super::sparse::is_zero;
use crate::error::Result;
use crate::interrupt;

/// Blocks that a thread works on before it hands over.
const BATCH: usize = 16;
/// Finished batches that may wait in the queue of each thread.
const QUEUE: usize = 4;

/// What the threads have in common.
pub struct Work<'a, S, W> {
    pub disk: &'a DiskImage,
    /// Bytes of a block.
    pub block: u64,
    /// All cores when `None`. Does not change the result.
    pub threads: Option<usize>,
    /// Makes what a thread keeps from block to block (a compressor and its memory).
    pub start: S,
    /// One block, by its index; behind the end of the disk it is filled with zeros.
    pub work: W,
}

/// What became of a batch: index and result of each block that is not zero, and how many blocks were read.
type Batch<T> = Result<(Vec<(u64, T)>, usize)>;

/// Works on every block that is not zero and hands the results to `put`, by ascending index. `progress` gets the number
/// of bytes of the disk done since the last call; together they are close to [`DiskImage::data_size`].
pub fn blocks<State, T, S, W>(
    work: &Work<'_, S, W>,
    put: &mut dyn FnMut(u64, T) -> Result<()>,
    progress: &dyn Fn(u64),
) -> Result<()>
where
    T: Send,
    S: Fn() -> Result<State> + Sync,
    W: Fn(&mut State, u64, &[u8]) -> Result<T> + Sync,
{
    let available = || std::thread::available_parallelism().map_or(1, usize::from);
    let threads = work.threads.unwrap_or_else(available).max(1);
    std::thread::scope(|scope| {
        let queues: Vec<Receiver<Batch<T>>> = (0..threads)
            .map(|thread| {
                let (sender, receiver) = sync_channel(QUEUE);
                scope.spawn(move || run(work, thread, threads, &sender));
                receiver
            })
            .collect();
        // A queue that ends means that there is no batch for this turn, hence none for any later one. On an error the
        // queues are dropped, and the threads stop at their next hand-over.
        for queue in queues.iter().cycle() {
            let Ok(batch) = queue.recv() else { break };
            interrupt::check()?;
            let (batch, read) = batch?;
            for (index, result) in batch {
                put(index, result)?;
            }
            progress(read as u64 * work.block);
        }
        Ok(())
    })
}

/// The part of one thread: every `threads`-th batch of touched blocks.
fn run<State, T, S, W>(work: &Work<'_, S, W>, thread: usize, threads: usize, queue: &SyncSender<Batch<T>>)
where
    S: Fn() -> Result<State>,
    W: Fn(&mut State, u64, &[u8]) -> Result<T>,
{
    let mut state = match (work.start)() {
        Ok(state) => state,
        Err(error) => return drop(queue.send(Err(error))),
    };
    let mut blocks = work.disk.touched_blocks(work.block);
    let mut buffer = vec![0; work.block as usize];
    let mut turn = 0;
    loop {
        let batch: Vec<u64> = blocks.by_ref().take(BATCH).collect();
        if batch.is_empty() {
            return;
        }
        let mine = turn == thread;
        turn = (turn + 1) % threads;
        if !mine {
            continue;
        }
        let mut results = Vec::with_capacity(batch.len());
        let mut one = |index: u64| -> Result<()> {
            work.disk.read_at(&mut buffer, index * work.block)?;
            if !is_zero(&buffer) {
                results.push((index, (work.work)(&mut state, index, &buffer)?));
            }
            Ok(())
        };
        let done = batch.iter().try_for_each(|index| one(*index));
        let failed = done.is_err();
        if queue.send(done.map(|()| (results, batch.len()))).is_err() || failed {
            return;
        }
    }
}
