//! Ctrl-C, `kill` and a closed terminal: the first asks work to stop and clean up, the second ends at once.
//!
//! Owns: the handler. What "stop" means is `interrupt`'s; long work asks there.

use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::error::{Context, Kind, Result};
use crate::interrupt;

static SEEN: AtomicBool = AtomicBool::new(false);

pub fn install() -> Result<()> {
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        // SAFETY: the action only touches atomics and calls `_exit`, both async-signal-safe.
        unsafe {
            signal_hook::low_level::register(signal, || {
                if SEEN.swap(true, Ordering::SeqCst) {
                    libc::_exit(i32::from(Kind::Interrupted.exit_code()));
                }
                interrupt::raise();
            })
        }
        .context("installing the signal handler")?;
    }
    Ok(())
}
