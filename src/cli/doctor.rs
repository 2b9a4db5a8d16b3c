//! `doctor`: what this machine lacks for building and for booting images, and the command that installs it.
//!
//! Owns: the checks as records ([`CHECKS`]), each with a verdict and a remedy. Nothing is changed on the machine.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use serde_json::json;

use super::output::{self, Format};
use super::{Globals, host};
use crate::error::{Error, Kind, Result};
use crate::inspect::boot::firmware::Firmware;
use crate::report::words;
use crate::sandbox::{self, userns};

/// Space that a first build of the two shipped images uses, with some air.
const CACHE_BYTES: u64 = 4_000_000_000;
const OUTPUT_BYTES: u64 = 2_000_000_000;
const MEMORY_BYTES: u64 = 1_500_000_000;
/// The oldest kernel of the supported hosts (Ubuntu 22.04, Debian 12) that the builder is used on.
const KERNEL: (u32, u32) = (5, 15);

/// Show what this machine lacks for building and booting images
///
/// Every line that is not `ok` comes with the command that helps. Nothing is installed or changed. The exit code is 8
/// if images cannot be built here; what is missing for `boot` alone does not count.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  imagebuilder doctor
  imagebuilder doctor --mirror http://deb.debian.org/debian   see whether the mirror answers, too
  imagebuilder doctor -o json | jq '.[] | select(.verdict != \"ok\")'")]
pub struct Args {
    /// Also ask this package mirror for an answer
    #[arg(long, value_name = "URL")]
    pub mirror: Option<String>,
    /// How the result is printed
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Need {
    Build,
    Boot,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    /// Works, but perhaps not as wanted.
    Warning,
    Missing,
}

/// What a check found: a verdict, a few words, and what to type if it is not `Ok`.
struct Finding {
    verdict: Verdict,
    detail: String,
    remedy: Option<String>,
}

struct Check {
    name: &'static str,
    need: Need,
    examine: fn(&Machine) -> Finding,
}

/// What the checks look at.
struct Machine {
    cache: Result<PathBuf>,
    output: PathBuf,
    mirror: Option<String>,
}

const CHECKS: [Check; 12] = [
    Check { name: "kernel", need: Need::Build, examine: kernel },
    Check { name: "user namespaces", need: Need::Build, examine: user_namespaces },
    Check { name: "subordinate ids", need: Need::Build, examine: subordinate_ids },
    Check { name: "memory", need: Need::Build, examine: memory },
    Check { name: "space for the cache", need: Need::Build, examine: cache_space },
    Check { name: "space for images", need: Need::Build, examine: output_space },
    Check { name: "space for work", need: Need::Build, examine: work_space },
    Check { name: "mirror", need: Need::Build, examine: mirror },
    Check { name: "qemu", need: Need::Boot, examine: |_| program("qemu-system-x86_64", host::QEMU) },
    Check { name: "qemu-img", need: Need::Boot, examine: |_| program("qemu-img", host::QEMU_IMG) },
    Check { name: "UEFI firmware", need: Need::Boot, examine: |_| ovmf(Firmware::Uefi) },
    Check { name: "UEFI Secure Boot", need: Need::Boot, examine: |_| ovmf(Firmware::UefiSecure) },
];

#[derive(Serialize)]
struct Row {
    name: &'static str,
    need: Need,
    verdict: Verdict,
    detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

pub fn run(args: &Args, globals: &Globals) -> Result<()> {
    let machine = Machine { cache: globals.cache_dir(), output: globals.output_dir(), mirror: args.mirror.clone() };
    let rows: Vec<Row> = CHECKS
        .iter()
        .map(|check| {
            let Finding { verdict, detail, remedy } = (check.examine)(&machine);
            Row { name: check.name, need: check.need, verdict, detail, remedy }
        })
        .collect();
    match args.output {
        Format::Table => output::print(&table(&rows))?,
        format => output::rows(format, &[], &rows, |_| Vec::new(), |row| json!(row))?,
    }
    let missing: Vec<&str> = missing(&rows, Need::Build);
    if missing.is_empty() {
        return match args.output {
            Format::Table => output::print("\nready: images can be built here\n"),
            _ => Ok(()),
        };
    }
    Err(Error::new(Kind::Checks, format!("images cannot be built here: {}", missing.join(", "))))
}

fn missing(rows: &[Row], need: Need) -> Vec<&'static str> {
    rows.iter().filter(|row| row.need == need && row.verdict == Verdict::Missing).map(|row| row.name).collect()
}

fn table(rows: &[Row]) -> String {
    let mut text = String::new();
    for (need, title) in [(Need::Build, "To build images"), (Need::Boot, "To boot them here (`imagebuilder boot`)")] {
        text.push_str(&format!("{title}\n"));
        let cells = rows.iter().filter(|row| row.need == need).map(|row| {
            let verdict = match row.verdict {
                Verdict::Ok => "  ok",
                Verdict::Warning => "  warning",
                Verdict::Missing => "  MISSING",
            };
            vec![verdict.to_owned(), row.name.to_owned(), row.detail.clone()]
        });
        text.push_str(&words::table(&cells.collect::<Vec<_>>()));
        for row in rows.iter().filter(|row| row.need == need) {
            if let Some(remedy) = &row.remedy {
                text.push_str(&format!("  -> {}: {remedy}\n", row.name));
            }
        }
        text.push('\n');
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

fn ok(detail: impl Into<String>) -> Finding {
    Finding { verdict: Verdict::Ok, detail: detail.into(), remedy: None }
}

fn not_ok(verdict: Verdict, detail: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding { verdict, detail: detail.into(), remedy: Some(remedy.into()) }
}

fn kernel(_: &Machine) -> Finding {
    let name = rustix::system::uname();
    let release = name.release().to_string_lossy().into_owned();
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit()).map(str::parse::<u32>);
    let found = (numbers.next().and_then(Result::ok).unwrap_or(0), numbers.next().and_then(Result::ok).unwrap_or(0));
    let detail = format!("Linux {release} on {}", name.machine().to_string_lossy());
    if name.machine().to_bytes() != b"x86_64" {
        return not_ok(
            Verdict::Missing,
            detail,
            "use an x86_64 machine: the programs of the image run while it is built",
        );
    }
    if found >= KERNEL {
        return ok(detail);
    }
    let remedy = format!("only kernels from {}.{} on are tried and tested; newer is better", KERNEL.0, KERNEL.1);
    not_ok(Verdict::Warning, detail, remedy)
}

fn user_namespaces(_: &Machine) -> Finding {
    let root = rustix::process::geteuid().is_root();
    match userns::probe() {
        Ok(()) => ok("usable"),
        Err(reason) if root => match sandbox::why_no_chroot() {
            None => ok(format!("not usable ({reason}); scripts run in a chroot, as in any ordinary container")),
            Some(why) => not_ok(
                Verdict::Missing,
                format!("not usable ({reason}), nor the sandbox `chroot`: {why}"),
                host::user_namespace_remedy(),
            ),
        },
        Err(reason) => not_ok(Verdict::Missing, format!("not usable ({reason})"), host::user_namespace_remedy()),
    }
}

fn subordinate_ids(_: &Machine) -> Finding {
    if rustix::process::geteuid().is_root() {
        return ok("not needed by root");
    }
    for tool in ["newuidmap", "newgidmap"] {
        if host::find_program(tool).is_none() {
            return not_ok(Verdict::Missing, format!("`{tool}` is not there"), host::install(host::UIDMAP));
        }
    }
    let user = host::user_name();
    for (file, flag) in [("/etc/subuid", "--add-subuids"), ("/etc/subgid", "--add-subgids")] {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        if host::subordinate_count(&text, &user, rustix::process::getuid().as_raw()) < 65_536 {
            let remedy = format!("sudo usermod {flag} 100000-165535 {user}");
            return not_ok(Verdict::Missing, format!("{file} gives {user} fewer than 65536"), remedy);
        }
    }
    ok(format!("65536 or more for {user}"))
}

fn memory(_: &Machine) -> Finding {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let Some(available) = host::meminfo(&text, "MemAvailable") else { return ok("unknown") };
    let detail = format!("{} available", words::bytes(available));
    if available >= MEMORY_BYTES {
        return ok(detail);
    }
    not_ok(Verdict::Warning, detail, format!("builds are tested with {} and more", words::bytes(MEMORY_BYTES)))
}

fn cache_space(machine: &Machine) -> Finding {
    match &machine.cache {
        Ok(dir) => space(dir, CACHE_BYTES, "choose another place with `--cache-dir`"),
        Err(error) => not_ok(Verdict::Missing, error.to_string(), "say where with `--cache-dir`"),
    }
}

fn output_space(machine: &Machine) -> Finding {
    space(&machine.output, OUTPUT_BYTES, "choose another place with `--output-dir`")
}

fn work_space(_: &Machine) -> Finding {
    space(&std::env::temp_dir(), OUTPUT_BYTES, "set TMPDIR to a folder on a larger file system")
}

fn space(dir: &Path, needed: u64, remedy: &str) -> Finding {
    let Some(free) = host::free_space(dir) else {
        return not_ok(Verdict::Warning, format!("{}: unknown", dir.display()), remedy);
    };
    let detail = format!("{}: {} free", dir.display(), words::bytes(free));
    if free >= needed {
        return ok(detail);
    }
    not_ok(Verdict::Missing, detail, format!("{} are needed; {remedy}", words::bytes(needed)))
}

fn mirror(machine: &Machine) -> Finding {
    let Some(url) = &machine.mirror else { return ok("not asked (`--mirror URL`)") };
    let agent = ureq::Agent::config_builder()
        .timeout_global(Some(Duration::from_secs(15)))
        .http_status_as_error(false)
        .build()
        .new_agent();
    match agent.get(format!("{}/dists/", url.trim_end_matches('/'))).call() {
        // Some mirrors do not list folders; that they say so is an answer.
        Ok(answer) if answer.status().as_u16() < 500 => ok(format!("{url} answers")),
        Ok(answer) => not_ok(Verdict::Missing, format!("{url}: {}", answer.status()), "try another mirror"),
        Err(error) => not_ok(
            Verdict::Missing,
            format!("{url}: {error}"),
            "check the address and the network; proxies are taken from `http_proxy` and `https_proxy`",
        ),
    }
}

fn program(name: &str, package: host::Package) -> Finding {
    match host::find_program(name) {
        Some(path) => ok(path.display().to_string()),
        None => not_ok(Verdict::Missing, format!("`{name}` is not there"), host::install(package)),
    }
}

fn ovmf(firmware: Firmware) -> Finding {
    match firmware.ovmf() {
        Ok(Some(files)) => ok(files.code.display().to_string()),
        Ok(None) => ok("comes with QEMU"),
        Err(error) => not_ok(Verdict::Missing, error.message(), host::install(host::OVMF)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(need: Need, verdict: Verdict, remedy: Option<&str>) -> Row {
        Row { name: "thing", need, verdict, detail: "words".into(), remedy: remedy.map(Into::into) }
    }

    #[test]
    fn only_what_building_needs_decides() {
        let rows = [row(Need::Build, Verdict::Warning, None), row(Need::Boot, Verdict::Missing, None)];
        assert!(missing(&rows, Need::Build).is_empty());
        let rows = [row(Need::Build, Verdict::Missing, None)];
        assert_eq!(missing(&rows, Need::Build), ["thing"]);
    }

    #[test]
    fn remedies_stand_under_their_table() {
        let text = table(&[row(Need::Build, Verdict::Missing, Some("do this")), row(Need::Boot, Verdict::Ok, None)]);
        let expected = "To build images\n  MISSING  thing  words\n  -> thing: do this\n\n\
                        To boot them here (`imagebuilder boot`)\n  ok  thing  words\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_folder_that_is_not_there_yet_has_the_space_of_its_parent() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(space(&dir.path().join("a/b"), 1, "x").verdict, Verdict::Ok);
        assert_eq!(space(&dir.path().join("a/b"), u64::MAX, "x").verdict, Verdict::Missing);
    }
}
