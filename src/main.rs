//! The `imagebuilder` program. Everything is in the library; see `cli`.

fn main() -> std::process::ExitCode {
    imagebuilder::cli::run()
}
