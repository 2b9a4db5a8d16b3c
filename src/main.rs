//! The `imagebuilder` program: parses arguments, installs the reporter and the signal handler, maps errors to exit
//! codes.

fn main() -> std::process::ExitCode {
    std::process::ExitCode::SUCCESS
}
