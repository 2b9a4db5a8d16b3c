//! The `imagebuilder` program. Everything is in the library; see `cli`.

/// A third less memory than the C library's allocator, which keeps what each thread and each decompressor had, and fewer
/// calls of the kernel (docs/performance.md).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    imagebuilder::cli::run()
}
