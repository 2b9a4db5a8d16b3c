//! Ctrl-C, as far as the rest of the program sees it: a flag that long work asks now and then.
//!
//! Owns: the flag and the question. The handler that raises it is installed by `main`.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, Kind, Result};

static RAISED: AtomicBool = AtomicBool::new(false);

/// Called by the signal handler; async-signal-safe.
pub fn raise() {
    RAISED.store(true, Ordering::SeqCst);
}

/// Fails with [`Kind::Interrupted`] once the user has asked to stop. Cheap enough for inner loops.
pub fn check() -> Result<()> {
    if RAISED.load(Ordering::Relaxed) { Err(Error::new(Kind::Interrupted, "interrupted")) } else { Ok(()) }
}
