//! `boot`: start an image in QEMU, for a look or for a check.
//!
//! Owns: the arguments and what is printed. The machine is `inspect::boot`'s.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueEnum;

use super::{Globals, host, output};
use crate::build::reseed::Base;
use crate::error::{Context, Error, Kind, Result};
use crate::format::disk::sums::Digests;
use crate::inspect::boot::machine::{FIRST_MAC, ImageFile, Medium, Prepared};
use crate::inspect::boot::{Accel, Firmware, Options, Seed, checks, seed};
use crate::report::words;
use crate::seed::{Identity, Input, Request};

/// More keys than anybody logs in with.
const KEY_FILE_LIMIT: u64 = 1 << 20;

/// Start an image in QEMU: a throw-away overlay takes all writes, a NoCloud seed gives it a name and a user
///
/// The image file is not changed. The serial line of the machine is on the terminal; `Ctrl-A X` ends it. Needs QEMU
/// and no privileges; what is missing is listed by `imagebuilder doctor`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  imagebuilder boot out/control-plane.qcow2
  imagebuilder boot out/ephemeral.iso --firmware uefi --medium usb
  imagebuilder boot out/data-plane.qcow2 --firmware uefi --ssh-key ~/.ssh/id_ed25519.pub
  imagebuilder boot out/control-plane.qcow2 --accel kvm --memory 4G --cpus 4
  imagebuilder boot out/control-plane.qcow2 --check --disk-size 24G --run 'sysctl kernel.pid_max'

`--check` logs in over the serial line, waits until the boot is over and checks: no failed units, the host name from
the seed, /etc/imagebuilder/meta, root grown into the disk, no password on root, and every `--run` command. Of an ISO a
copy is started, whose seed lets the check in: instead of a grown root, the medium has to be the config drive. The exit
code is 8 if one fails.")]
pub struct Args {
    /// The image: qcow2, raw, VMDK, VHD or ISO
    pub image: PathBuf,
    /// What the machine starts with
    #[arg(long, value_enum, default_value = "bios")]
    pub firmware: FirmwareWord,
    /// How the machine sees the image [default: an ISO as a CD, anything else as a disk]
    #[arg(long, value_enum)]
    pub medium: Option<MediumWord>,
    /// How instructions run: emulated (slow, works everywhere), or by the kernel (needs /dev/kvm)
    #[arg(long, value_enum, default_value = "tcg")]
    pub accel: AccelWord,
    /// Memory of the machine
    #[arg(long, value_name = "SIZE", default_value = "2G", value_parser = parse_size)]
    pub memory: u64,
    /// Processors of the machine
    #[arg(long, value_name = "COUNT", default_value = "2", value_parser = clap::value_parser!(u32).range(1..=255))]
    pub cpus: u32,
    /// Size of the disk the machine sees, to watch root grow [default: that of the image]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub disk_size: Option<u64>,
    /// Name of the machine [default: from the file name of the image]
    #[arg(long, value_name = "NAME")]
    pub hostname: Option<String>,
    // Not `operator` or `admin`: distributions have groups of these names, and useradd(8) refuses.
    /// User to create; may become root with `sudo`
    #[arg(long, value_name = "NAME", default_value = "imagebuilder")]
    pub user: String,
    /// Password of the user on the console [default: a random one, printed]
    #[arg(long, value_name = "TEXT")]
    pub password: Option<String>,
    /// Public key file for ssh; without one there is no remote login
    #[arg(long, value_name = "FILE")]
    pub ssh_key: Vec<PathBuf>,
    /// Log in by itself, check the machine, print the results, switch it off
    #[arg(long)]
    pub check: bool,
    /// With `--check`: also run this command as root in the machine; it must succeed
    #[arg(long, value_name = "COMMAND", requires = "check")]
    pub run: Vec<String>,
    /// With `--check`: give up when there is no login prompt after this many seconds
    #[arg(long, value_name = "SECONDS", default_value = "900", requires = "check")]
    pub timeout: u64,
    /// With `--check`: write everything the serial line says to this file
    #[arg(long, value_name = "FILE", requires = "check")]
    pub log: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum FirmwareWord {
    Bios,
    Uefi,
    /// UEFI with Secure Boot on and the usual keys enrolled
    UefiSecure,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum MediumWord {
    Disk,
    Cd,
    Usb,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum AccelWord {
    Tcg,
    Kvm,
}

pub fn run(args: &Args, globals: &Globals) -> Result<()> {
    let mut options = Options {
        firmware: match args.firmware {
            FirmwareWord::Bios => Firmware::Bios,
            FirmwareWord::Uefi => Firmware::Uefi,
            FirmwareWord::UefiSecure => Firmware::UefiSecure,
        },
        accel: match args.accel {
            AccelWord::Tcg => Accel::Tcg,
            AccelWord::Kvm => Accel::Kvm,
        },
        memory_mib: u32::try_from(args.memory >> 20)
            .map_err(|_| Error::new(Kind::Usage, "more memory than QEMU can give"))?,
        cpus: args.cpus,
        disk_size: args.disk_size,
        medium: match args.medium {
            Some(MediumWord::Disk) => Medium::Disk,
            Some(MediumWord::Cd) => Medium::Cd,
            Some(MediumWord::Usb) => Medium::UsbStick,
            None if is_iso(&args.image) => Medium::Cd,
            None => Medium::Disk,
        },
        ..Options::default()
    };
    programs(args, &options)?;
    if is_iso(&args.image) {
        return boot_iso(args, globals, &options);
    }
    let seed = seed(args)?;
    if args.check {
        return check(args, globals, &seed, Prepared::new(&args.image, &seed, &options)?, false);
    }
    options.ssh_port = free_port();
    let prepared = Prepared::new(&args.image, &seed, &options)?;
    output::print(&greeting(args, &seed, &options)?)?;
    prepared.interact()
}

/// A live system brings its own seed: who may log in is what that says. To be checked, a copy of it gets another one.
fn boot_iso(args: &Args, globals: &Globals, options: &Options) -> Result<()> {
    if args.check {
        let seed = seed(args)?;
        let folder = tempfile::Builder::new().prefix("imagebuilder-boot-").tempdir();
        let folder = folder.context("creating a temporary folder for a copy of the ISO")?;
        let copy = folder.path().join("checked.iso");
        let base = Base::open(&args.image)?;
        base.write(&of_the_check(&seed)?, &copy, Digests::NONE)?;
        return check(args, globals, &seed, Prepared::seeded(&copy, None, options)?, true);
    }
    let prepared = Prepared::seeded(&args.image, None, options)?;
    output::print(&format!(
        "booting {}; it is not changed, and its own seed says who may log in\nCtrl-A X ends the machine\n\n",
        args.image.display()
    ))?;
    prepared.interact()
}

/// Lets the check in. The machine has one adapter, which is none of the site's.
fn of_the_check(seed: &Seed) -> Result<crate::seed::Seed> {
    let network = serde_json::json!({
        "links": [{"id": "first", "type": "phy", "ethernet_mac_address": FIRST_MAC}],
        "networks": [{"id": "network", "link": "first", "type": "ipv4_dhcp"}],
        "services": [],
    });
    let bytes = |name: &str, text: String| Input::Bytes(name.to_owned(), text.into_bytes());
    let identity = Identity { site: "check".to_owned(), hostname: Some(seed.hostname.clone()) };
    let (user_data, network_data) = (bytes("user_data", seed.user_data()), bytes("network_data", network.to_string()));
    crate::seed::load(&Request { user_data, network_data, identity }).context("making a seed for the check")
}

/// ECMA-119 8.4: the first volume descriptor is in block 16.
fn is_iso(image: &Path) -> bool {
    use std::os::unix::fs::FileExt;
    let mut descriptor = [0; 6];
    std::fs::File::open(image).and_then(|file| file.read_exact_at(&mut descriptor, 32768)).is_ok()
        && &descriptor == b"\x01CD001"
}

/// What starts the machine has to be installed: said before anything is made, with the command that installs it.
/// A wrong image is the nearer problem.
fn programs(args: &Args, options: &Options) -> Result<()> {
    ImageFile::examine(&args.image)?;
    for (program, package) in [("qemu-img", host::QEMU_IMG), ("qemu-system-x86_64", host::QEMU)] {
        if host::find_program(program).is_none() {
            return Err(Error::build(format!("`{program}` is not installed")).hint(host::install(package)));
        }
    }
    options.firmware.ovmf().map_err(|error| error.hint(host::install(host::OVMF)))?;
    Ok(())
}

/// The seed that the arguments describe; a password is made up if none is given.
fn seed(args: &Args) -> Result<Seed> {
    let mut ssh_keys = Vec::new();
    for file in &args.ssh_key {
        let text = read_key(file).with_context(|| format!("reading key {}", file.display()))?;
        if text.contains("PRIVATE KEY") {
            return Err(Error::new(Kind::Usage, format!("{} is a private key", file.display()))
                .hint("give the public one, `.pub`"));
        }
        ssh_keys.extend(text.lines().map(str::to_owned).filter(|line| !line.trim().is_empty()));
    }
    let password = args.password.clone().map_or_else(seed::random_password, Ok)?;
    let hostname = args.hostname.clone().unwrap_or_else(|| hostname_from(&args.image));
    let seed = Seed { hostname, user: args.user.clone(), password: Some(password), ssh_keys };
    seed.check()?;
    Ok(seed)
}

/// The lines of a public key file. It may be a pipe (`<(ssh-add -L)`), so its size is not asked beforehand.
fn read_key(file: &Path) -> Result<String> {
    let mut text = String::new();
    let file = std::fs::File::open(file).context("opening it")?;
    file.take(KEY_FILE_LIMIT + 1).read_to_string(&mut text).context("reading it")?;
    if text.len() as u64 > KEY_FILE_LIMIT {
        let message = format!("it is larger than {} MiB", KEY_FILE_LIMIT >> 20);
        return Err(
            Error::new(Kind::Usage, message).hint("give a public key, `.pub`, or a file like `authorized_keys`")
        );
    }
    Ok(text)
}

/// The file name as far as it can be a host name; `node` if nothing of it can.
fn hostname_from(image: &Path) -> String {
    let stem = image.file_stem().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    let name: String = stem.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(63).collect();
    let name = name.trim_matches('-');
    if name.is_empty() { "node".to_owned() } else { name.to_owned() }
}

/// A port that is free now. Somebody may take it first; then QEMU says so.
fn free_port() -> Option<u16> {
    TcpListener::bind(("127.0.0.1", 0)).and_then(|socket| socket.local_addr()).ok().map(|address| address.port())
}

fn greeting(args: &Args, seed: &Seed, options: &Options) -> Result<String> {
    let image = ImageFile::examine(&args.image)?;
    let size = words::bytes(options.disk_size.unwrap_or(image.virtual_size));
    let mut text = format!("booting {} ({}, disk of {size}); it is not changed\n", args.image.display(), image.format);
    if let (None, Some(password)) = (&args.password, &seed.password) {
        text.push_str(&format!("log in as `{}` with the password `{password}`; `sudo` needs none\n", seed.user));
    }
    if let (Some(port), false) = (options.ssh_port, seed.ssh_keys.is_empty()) {
        text.push_str(&format!("or from another terminal: ssh -p {port} {}@127.0.0.1\n", seed.user));
    }
    text.push_str("Ctrl-A X ends the machine\n\n");
    Ok(text)
}

fn check(args: &Args, globals: &Globals, seed: &Seed, prepared: Prepared, live: bool) -> Result<()> {
    let reporter = globals.reporter();
    let step = reporter.step(format!("booting {}", args.image.display()));
    let mut log = args
        .log
        .as_ref()
        .map(|path| std::fs::File::create(path).with_context(|| format!("creating {}", path.display())))
        .transpose()?;
    let mut machine = prepared.start(move |bytes| {
        if let Some(log) = &mut log {
            // The log is a by-product; the check itself goes on without it.
            let _ = log.write_all(bytes);
        }
    })?;
    let password = seed.password.as_deref().unwrap_or_default();
    machine.console.log_in(&seed.user, password, Duration::from_secs(args.timeout))?;
    step.finish("logged in");
    let mut failed = 0;
    let mut printed = Ok(());
    let outcomes = checks::run(&mut machine.console, seed, live, &args.run, &mut |outcome| {
        failed += usize::from(!outcome.passed);
        let word = if outcome.passed { "ok    " } else { "FAILED" };
        let detail = outcome.output.replace('\n', "\n         ");
        if printed.is_ok() {
            printed = output::print(&format!("{word}  {}\n         {detail}\n", outcome.name));
        }
    })?;
    printed?;
    output::print(&format!("{} checks passed, {failed} failed\n", outcomes.len() - failed))?;
    if failed == 0 {
        return Ok(());
    }
    Err(Error::new(Kind::Checks, format!("{failed} checks failed on {}", args.image.display())))
}

/// `4096` bytes, `512M`, `19G`: powers of 1024, as QEMU counts.
fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|letter: char| !letter.is_ascii_digit());
    let shift = match text[digits.len()..].to_ascii_uppercase().trim_end_matches("IB") {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return Err("expected a number with K, M, G or T, such as `2G`".into()),
    };
    let number: u64 = digits.parse().map_err(|_| "expected a number with K, M, G or T, such as `2G`")?;
    number.checked_mul(1 << shift).filter(|size| *size > 0).ok_or_else(|| "out of range".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(parse_size("2G"), Ok(2 << 30));
        assert_eq!(parse_size("512MiB"), Ok(512 << 20));
        assert_eq!(parse_size("4096"), Ok(4096));
        for bad in ["", "G", "-1G", "2X", "99999999999T", "0", "1.5G"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn key_files_have_a_limit() {
        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join("id.pub");
        std::fs::write(&key, "ssh-ed25519 AAAA me\n").unwrap();
        assert_eq!(read_key(&key).unwrap(), "ssh-ed25519 AAAA me\n");
        assert_eq!(read_key(Path::new("/dev/zero")).unwrap_err().kind(), Kind::Usage);
    }

    #[test]
    fn host_names_from_file_names() {
        assert_eq!(hostname_from("out/control-plane.qcow2".as_ref()), "control-plane");
        assert_eq!(hostname_from("x/_Node 1_.raw".as_ref()), "node-1");
        assert_eq!(hostname_from("___.raw".as_ref()), "node");
    }
}
