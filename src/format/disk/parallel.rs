//! Blocks of a disk through threads and out again in order.
//!
//! Owns: [`blocks`] and [`in_order`]. Thread k of n takes batches k, k + n, k + 2n ... and has a short queue of its own; the caller's
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
    let start = || Ok(((work.start)()?, vec![0; work.block as usize]));
    let one = |(state, buffer): &mut (State, Vec<u8>), index: u64| {
        work.disk.read_at(buffer, index * work.block)?;
        if is_zero(buffer) { Ok(None) } else { (work.work)(state, index, buffer).map(Some) }
    };
    let jobs = Jobs { items: work.disk.touched_blocks(work.block), batch: BATCH, threads: work.threads };
    in_order(jobs, &start, &one, put, &|done| progress(done as u64 * work.block))
}

/// What there is to do, and how.
pub struct Jobs<I> {
    pub items: I,
    /// Items that a thread works on before it hands over.
    pub batch: usize,
    /// All cores when `None`. Does not change the result.
    pub threads: Option<usize>,
}

/// Works on every item and hands the results to `put`, in the order of the items; `None` is no result. `start` makes
/// what a thread keeps from item to item. `done` gets the number of items done since the last call.
pub fn in_order<State, T, I>(
    jobs: Jobs<I>,
    start: &(dyn Fn() -> Result<State> + Sync),
    work: &(dyn Fn(&mut State, u64) -> Result<Option<T>> + Sync),
    put: &mut dyn FnMut(u64, T) -> Result<()>,
    done: &dyn Fn(usize),
) -> Result<()>
where
    T: Send,
    I: Iterator<Item = u64> + Clone + Send,
{
    let available = || std::thread::available_parallelism().map_or(1, usize::from);
    let threads = jobs.threads.unwrap_or_else(available).max(1);
    std::thread::scope(|scope| {
        let queues: Vec<Receiver<Batch<T>>> = (0..threads)
            .map(|thread| {
                let (sender, receiver) = sync_channel(QUEUE);
                let mine = Mine { items: jobs.items.clone(), batch: jobs.batch, thread, threads };
                scope.spawn(move || run(mine, start, work, &sender));
                receiver
            })
            .collect();
        // A queue that ends means that there is no batch for this turn, hence none for any later one. On an error the
        // queues are dropped, and the threads stop at their next hand-over.
        for queue in queues.iter().cycle() {
            let Ok(batch) = queue.recv() else { break };
            interrupt::check()?;
            let (batch, count) = batch?;
            for (index, result) in batch {
                put(index, result)?;
            }
            done(count);
        }
        Ok(())
    })
}

/// The part of one thread: every `threads`-th batch.
struct Mine<I> {
    items: I,
    batch: usize,
    thread: usize,
    threads: usize,
}

fn run<State, T, I: Iterator<Item = u64>>(
    mut mine: Mine<I>,
    start: &(dyn Fn() -> Result<State> + Sync),
    work: &(dyn Fn(&mut State, u64) -> Result<Option<T>> + Sync),
    queue: &SyncSender<Batch<T>>,
) {
    let mut state = match start() {
        Ok(state) => state,
        Err(error) => return drop(queue.send(Err(error))),
    };
    let mut turn = 0;
    loop {
        let batch: Vec<u64> = mine.items.by_ref().take(mine.batch).collect();
        if batch.is_empty() {
            return;
        }
        let ours = turn == mine.thread;
        turn = (turn + 1) % mine.threads;
        if !ours {
            continue;
        }
        let mut results = Vec::with_capacity(batch.len());
        let mut one = |index: u64| -> Result<()> {
            results.extend(work(&mut state, index)?.map(|result| (index, result)));
            Ok(())
        };
        let done = batch.iter().try_for_each(|index| one(*index));
        let failed = done.is_err();
        if queue.send(done.map(|()| (results, batch.len()))).is_err() || failed {
            return;
        }
    }
}
