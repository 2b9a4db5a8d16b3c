//! `completion`: tab completion for a shell.

use clap::CommandFactory;
use clap_complete::Shell;

use super::{Cli, output};
use crate::error::{Error, Result};

/// Print tab completion for a shell
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  imagebuilder completion bash > ~/.local/share/bash-completion/completions/imagebuilder
  imagebuilder completion zsh > ~/.zfunc/_imagebuilder
  imagebuilder completion fish > ~/.config/fish/completions/imagebuilder.fish")]
pub struct Args {
    #[arg(value_enum)]
    pub shell: Shell,
}

pub fn run(args: &Args) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "imagebuilder", &mut script);
    output::print(&String::from_utf8(script).map_err(|error| Error::build(error.to_string()))?)
}
