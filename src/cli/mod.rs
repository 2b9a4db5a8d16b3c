//! The command line: what can be typed, and what each verb does with the rooms below.
//!
//! Owns: [`Cli`], the global options, and [`run`], which `main` calls. One file a verb; a verb file holds its clap
//! arguments and a `run` function. Uses every room; nothing uses it. Only this room prints results, through
//! [`output`].

mod affected;
mod boot;
mod build;
mod builder;
mod bundle;
mod cache;
mod completion;
mod contained;
mod container;
mod diff;
mod doctor;
mod documents;
mod engine;
mod entry;
mod epoch;
mod explain;
pub mod failure;
mod host;
mod inspect;
mod lock;
mod origin;
pub mod output;
mod owner;
mod phase;
mod rebuild;
mod render;
mod reseed;
mod revision;
mod serve;
pub mod signals;
mod validate;
mod verify;

use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, Subcommand, ValueEnum};

use crate::engine::docker;
use crate::error::{Error, Kind, Result};
use crate::kustomize;
use crate::report::Reporter;
use crate::sandbox::{self, Entered};

const AFTER_HELP: &str = "\
Start here:
  imagebuilder doctor                        what this machine lacks, and the command that installs it
  make IMAGE_TYPE=qcow cut_image             build the images that config/ describes
  imagebuilder boot out/control-plane.qcow2  start one in QEMU; the file is not changed

Exit codes:
  0 ok, 1 build failed, 2 usage, 3 documents invalid, 4 input not authentic, 5 network, 6 no space,
  7 lock drift, 8 checks failed, 130 interrupted";

/// Turns Airship-style documents into bootable operating-system images.
#[derive(Debug, Parser)]
#[command(name = "imagebuilder", version, propagate_version = true, arg_required_else_help = true)]
#[command(after_long_help = AFTER_HELP, after_help = "`--help` says more than `-h`, with examples for every verb.")]
pub struct Cli {
    #[command(flatten)]
    pub globals: Globals,
    #[command(subcommand)]
    pub verb: Verb,
}

/// Options that every verb takes, before or after its name.
#[derive(Debug, clap::Args)]
pub struct Globals {
    /// How progress is shown on standard error
    #[arg(long, global = true, value_enum, default_value = "auto", help_heading = "Global options")]
    pub progress: Progress,
    /// Where downloads and finished steps are kept [default: $XDG_CACHE_HOME/imagebuilder or ~/.cache/imagebuilder]
    #[arg(long, global = true, value_name = "DIR", env = "IMAGEBUILDER_CACHE_DIR", help_heading = "Global options")]
    pub cache_dir: Option<PathBuf>,
    /// A build keeps the cache below this, what was not used for longest goes first; `0` for no limit [default: 20GiB]
    #[arg(
        long,
        global = true,
        value_name = "SIZE",
        env = "IMAGEBUILDER_CACHE_SIZE",
        value_parser = cache::size,
        help_heading = "Global options"
    )]
    pub cache_size: Option<u64>,
    /// Where images and the files beside them go [default: out]
    #[arg(long, global = true, value_name = "DIR", help_heading = "Global options")]
    pub output_dir: Option<PathBuf>,
    /// What confines packages' scripts: namespaces of their own, or (in a container without privileges) a chroot
    #[arg(
        long,
        global = true,
        value_enum,
        default_value = "auto",
        env = "IMAGEBUILDER_SANDBOX",
        help_heading = "Global options"
    )]
    pub sandbox: SandboxChoice,
    /// Where root file systems lie while scripts run in them, best in memory [default: in memory, or in the cache folder]
    #[arg(long, global = true, value_name = "DIR", env = "IMAGEBUILDER_WORK_DIR", help_heading = "Global options")]
    pub work_dir: Option<PathBuf>,
    /// Log what happens inside; twice for more (`RUST_LOG` refines it)
    #[arg(short, long, global = true, action = clap::ArgAction::Count, help_heading = "Global options")]
    pub verbose: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Progress {
    /// Bars on a terminal, plain lines otherwise
    Auto,
    /// One line per event
    Plain,
    /// One JSON object per line
    Json,
    /// Warnings only
    Quiet,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SandboxChoice {
    /// Namespaces where they can be made, else chroot
    Auto,
    /// Mount, process, host name and network namespaces below a user namespace
    Namespaces,
    /// No mounts and no namespaces: for root in an ordinary container
    Chroot,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    Render(render::Args),
    Origin(origin::Args),
    Phase(phase::Args),
    Build(build::Args),
    Lock(lock::Args),
    Boot(boot::Args),
    Inspect(inspect::Args),
    Diff(diff::Args),
    Affected(affected::Args),
    Rebuild(rebuild::Args),
    Reseed(reseed::Args),
    Verify(verify::Args),
    Validate(validate::Args),
    Builder(builder::Args),
    Explain(explain::Args),
    Cache(cache::Args),
    Bundle(bundle::Args),
    Container(container::Args),
    Serve(serve::Args),
    Doctor(doctor::Args),
    Completion(completion::Args),
}

impl Globals {
    pub fn reporter(&self) -> Reporter {
        match self.progress {
            Progress::Auto if std::io::stderr().is_terminal() => Reporter::terminal(),
            Progress::Auto | Progress::Plain => Reporter::plain(),
            Progress::Json => Reporter::json(),
            Progress::Quiet => Reporter::quiet(),
        }
    }

    /// The cache folder: flag, `XDG_CACHE_HOME`, `~/.cache`. Empty variables count as unset (XDG base directory
    /// specification), and so do relative ones.
    pub fn cache_dir(&self) -> Result<PathBuf> {
        if let Some(dir) = &self.cache_dir {
            return Ok(dir.clone());
        }
        let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let base = absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")));
        base.map(|base| base.join("imagebuilder")).ok_or_else(|| {
            Error::new(Kind::Usage, "no place for the cache: neither XDG_CACHE_HOME nor HOME is set")
                .hint("say where with `--cache-dir`")
        })
    }

    /// Bytes that the cache may have after a build; `None` is no limit.
    pub fn cache_size(&self) -> Option<u64> {
        Some(self.cache_size.unwrap_or(crate::build::cache::DEFAULT_SIZE)).filter(|size| *size > 0)
    }

    /// Gets the rights that a build needs, and the sandbox that goes with them. No thread may run yet.
    pub fn enter_sandbox(&self) -> Result<Entered> {
        sandbox::enter(match self.sandbox {
            SandboxChoice::Auto => sandbox::Choice::Auto,
            SandboxChoice::Namespaces => sandbox::Choice::Namespaces,
            SandboxChoice::Chroot => sandbox::Choice::Chroot,
        })
    }

    /// Where work areas are made.
    pub fn work_dir(&self, cache: &std::path::Path) -> PathBuf {
        self.work_dir.clone().unwrap_or_else(|| cache.join("work"))
    }

    pub fn output_dir(&self) -> PathBuf {
        self.output_dir.clone().unwrap_or_else(|| PathBuf::from("out"))
    }

    fn start_tracing(&self) {
        let default = match self.verbose {
            0 => return,
            1 => "imagebuilder=debug",
            _ => "imagebuilder=trace",
        };
        let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| default.into());
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    }
}

/// Parses the arguments of the process, does what they ask, renders what went wrong. The exit code is the error's.
pub fn run() -> ExitCode {
    let given = match arguments() {
        Ok(given) => given,
        Err(code) => return code,
    };
    let cli = match Cli::try_parse_from(given) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to standard output with code 0, mistakes to standard error with code 2.
            let _ = error.print();
            return ExitCode::from(u8::from(error.use_stderr()) * Kind::Usage.exit_code());
        }
    };
    kustomize::function::run_with(Arc::new(|call| docker::function::run(&contained::variables(), call)));
    match dispatch(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if cli.globals.progress == Progress::Json {
                crate::report::json::failed(&error);
            }
            failure::print(&error);
            // Upstream's container knows one code for failures.
            let contract = matches!(cli.verb, Verb::Container(_));
            ExitCode::from(if contract { 1 } else { error.kind().exit_code() })
        }
    }
}

/// What the name and the words of this process mean; another program that they name takes its place.
fn arguments() -> std::result::Result<Vec<OsString>, ExitCode> {
    let folders: Vec<PathBuf> =
        std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default();
    match entry::arguments(std::env::args_os(), &folders) {
        entry::Meaning::Own(arguments) => Ok(arguments),
        entry::Meaning::Other(program, arguments) => {
            let error = std::os::unix::process::CommandExt::exec(std::process::Command::new(&program).args(arguments));
            failure::print(&Error::new(Kind::Usage, format!("starting {}: {error}", program.display())));
            // As a shell has it for a command that it cannot find.
            Err(ExitCode::from(127))
        }
    }
}

fn dispatch(cli: &Cli) -> Result<()> {
    cli.globals.start_tracing();
    signals::install()?;
    let globals = &cli.globals;
    match &cli.verb {
        Verb::Render(args) => render::run(args, globals),
        Verb::Origin(args) => origin::run(args, globals),
        Verb::Phase(args) => phase::run(args, globals),
        Verb::Build(args) => build::run(args, globals),
        Verb::Lock(args) => lock::run(args, globals),
        Verb::Boot(args) => boot::run(args, globals),
        Verb::Inspect(args) => inspect::run(args),
        Verb::Diff(args) => diff::run(args),
        Verb::Affected(args) => affected::run(args),
        Verb::Rebuild(args) => rebuild::run(args, globals),
        Verb::Reseed(args) => reseed::run(args, globals),
        Verb::Verify(args) => verify::run(args, globals),
        Verb::Validate(args) => validate::run(args),
        Verb::Builder(args) => builder::run(args, globals),
        Verb::Explain(args) => explain::run(args),
        Verb::Cache(args) => cache::run(args, globals),
        Verb::Bundle(args) => bundle::run(args, globals),
        Verb::Container(args) => container::run(args, globals),
        Verb::Serve(args) => serve::run(args, globals),
        Verb::Doctor(args) => doctor::run(args, globals),
        Verb::Completion(args) => completion::run(args),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_verb_teaches_with_examples() {
        for verb in Cli::command().get_subcommands_mut() {
            let help = verb.render_long_help().to_string();
            assert!(help.contains("Examples:"), "`{} --help` has no examples", verb.get_name());
        }
    }
}
