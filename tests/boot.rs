//! Built images, booted in QEMU: what the documents declare must be in force in the running machine.
//!
//! `IMAGEBUILDER_BOOT_IMAGES=out cargo test --test boot` takes the images of `make IMAGE_TYPE=qcow cut_image`, of the
//! release that `DISTRO` names. Emulated (no /dev/kvm), so the same everywhere; minutes per boot. Logs of the serial
//! lines go to the same folder.
//!
//! `IMAGEBUILDER_UPGRADE=folder cargo test --test boot upgrade` builds a Debian 12 image with the oldest kernel of the
//! archive there (with `IMAGEBUILDER_PROGRAM` if set, a release build is much faster; `IMAGEBUILDER_CACHE_DIR` is its
//! cache), boots it, lets its apt install the newest one, and reboots into that.
//!
//! Without its variable a test is shown as ignored.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use imagebuilder::inspect::boot::machine::{ImageFile, Medium, Prepared};
use imagebuilder::inspect::boot::{Console, Firmware, Options, Seed, checks, seed};
use imagebuilder::plan::{self, Intent, meta};
use libtest_mimic::{Arguments, Failed, Trial};

#[path = "support/live.rs"]
mod live;
#[path = "support/mirror.rs"]
mod mirror;
#[path = "support/upgrade.rs"]
mod upgrade;

use upgrade::Upgrade;

const VARIABLE: &str = "IMAGEBUILDER_BOOT_IMAGES";
const UPGRADE_VARIABLE: &str = "IMAGEBUILDER_UPGRADE";
const LOGIN: Duration = Duration::from_secs(900);
const COMMAND: Duration = Duration::from_secs(120);
/// An initramfs with the modules of all machines, made by an emulated processor.
const INSTALL: Duration = Duration::from_secs(2400);
const CASES: [(&str, &str, Firmware); 4] = [
    ("control-plane", "bios", Firmware::Bios),
    ("control-plane", "uefi", Firmware::Uefi),
    ("control-plane", "uefi-secure", Firmware::UefiSecure),
    ("data-plane", "bios", Firmware::Bios),
];

fn main() -> std::process::ExitCode {
    let arguments = Arguments::from_args();
    let images = std::env::var_os(VARIABLE).map(PathBuf::from);
    if images.is_none() {
        println!("skipped: {VARIABLE} does not name a folder with built images");
    }
    let trials = CASES.map(|(role, firmware_name, firmware)| {
        let images = images.clone();
        let ignored = images.is_none();
        let test = move || boot(&images.unwrap_or_default(), role, firmware_name, firmware);
        Trial::test(format!("{role} {firmware_name}"), test).with_ignored_flag(ignored)
    });
    let mut trials: Vec<Trial> = trials.into();
    trials.extend(isos());
    trials.push(netboots());
    trials.extend(upgrades());
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// The netboot set of an ImageConfiguration with `type: netboot` in the same folder.
fn netboots() -> Trial {
    let images = std::env::var_os(VARIABLE).map(PathBuf::from);
    let images = images.filter(|images| images.join("ephemeral.ipxe").is_file());
    if images.is_none() {
        println!("skipped: {VARIABLE} does not name a folder with `ephemeral.ipxe`");
    }
    let (ignored, images) = (images.is_none(), images.unwrap_or_default());
    Trial::test("ephemeral netboot", move || live::boot_from_network(&images)).with_ignored_flag(ignored)
}

/// The ISO of `make IMAGE_TYPE=iso cut_image` in the same folder.
fn isos() -> impl Iterator<Item = Trial> {
    let cases = [
        ("bios-cd", Firmware::Bios, Medium::Cd, true),
        ("uefi-secure-cd", Firmware::UefiSecure, Medium::Cd, false),
        ("uefi-usb", Firmware::Uefi, Medium::UsbStick, true),
        ("uefi-disk", Firmware::Uefi, Medium::Disk, true),
    ];
    let images = std::env::var_os(VARIABLE).map(PathBuf::from);
    let images = images.filter(|images| images.join("ephemeral.iso").is_file());
    if images.is_none() {
        println!("skipped: {VARIABLE} does not name a folder with `ephemeral.iso`");
    }
    cases.into_iter().map(move |(name, firmware, medium, stale)| {
        let (ignored, images) = (images.is_none(), images.clone().unwrap_or_default());
        let test = move || live::boot(&images, name, firmware, medium, stale);
        Trial::test(format!("ephemeral {name}"), test).with_ignored_flag(ignored)
    })
}

/// One image for all firmwares, built when the first of them is tested.
fn upgrades() -> impl Iterator<Item = Trial> {
    let folder = std::env::var_os(UPGRADE_VARIABLE).map(PathBuf::from);
    if folder.is_none() {
        println!("skipped: {UPGRADE_VARIABLE} does not name a folder for an image");
    }
    let ignored = folder.is_none();
    let folder = folder.unwrap_or_default();
    let image = Arc::new(Mutex::new(None));
    let firmwares = [("bios", Firmware::Bios), ("uefi", Firmware::Uefi), ("uefi-secure", Firmware::UefiSecure)];
    firmwares.into_iter().map(move |(name, firmware)| {
        let (image, folder) = (image.clone(), folder.clone());
        let test = move || {
            let prepare = || -> Result<Arc<Upgrade>, Failed> {
                // One at a time; a failure in one must not stop the others from trying.
                let mut image = image.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(upgrade) = &*image {
                    return Ok(Arc::clone(upgrade));
                }
                let cache = std::env::var_os("IMAGEBUILDER_CACHE_DIR").map(PathBuf::from);
                let cache = cache.unwrap_or_else(|| folder.join("cache"));
                let upgrade = Arc::new(Upgrade::prepare(&folder.join("upgrade"), &cache)?);
                *image = Some(Arc::clone(&upgrade));
                Ok(upgrade)
            };
            upgrade_kernel(&*prepare()?, &folder, name, firmware)
        };
        Trial::test(format!("kernel upgrade {name}"), test).with_ignored_flag(ignored)
    })
}

fn upgrade_kernel(upgrade: &Upgrade, logs: &Path, firmware_name: &str, firmware: Firmware) -> Result<(), Failed> {
    let name = format!("upgrade-{firmware_name}");
    let seed = seed_of(&name)?;
    let size = ImageFile::examine(&upgrade.image)?.virtual_size + (5 << 30);
    let options = Options { firmware, disk_size: Some(size), reboots: true, ..Options::default() };
    let mut log = std::fs::File::create(logs.join(format!("{name}.log")))?;
    let mut machine = Prepared::new(&upgrade.image, &seed, &options)?.start(move |bytes| {
        let _ = log.write_all(bytes);
    })?;
    let console = &mut machine.console;
    log_in_and_look(console, &seed, &upgrade.intent, firmware)?;
    let found = ask(console, "uname -r")?;
    expect("the kernel that was pinned", found == upgrade.old, &found)?;
    let mut said_by_apt = String::new();
    for command in upgrade.commands() {
        let result = console.run(&command, INSTALL).map_err(said)?;
        expect(&command, result.status == 0, &result.output)?;
        said_by_apt = result.output;
    }
    for words in [format!("Generating /boot/initrd.img-{}", upgrade.new), "Generating grub configuration file".into()] {
        expect(&format!("`{words}`"), said_by_apt.contains(&words), &said_by_apt)?;
    }
    for words in ["error:", "W: ", "E: ", "cannot find"] {
        expect(&format!("no `{words}`"), !said_by_apt.contains(words), &said_by_apt)?;
    }
    let unfinished = ask(console, "dpkg --audit")?;
    expect("every package is configured", unfinished.is_empty(), &unfinished)?;
    // The kernel's last words tell the prompt of the next start from that of this one.
    console.send_line("dmesg -n 7; systemctl reboot").map_err(said)?;
    console.wait_for(&["reboot: Restarting system"], LOGIN).map_err(said)?;
    log_in_and_look(console, &seed, &upgrade.intent, firmware)?;
    let found = ask(console, "uname -r")?;
    expect("the kernel that was installed", found == upgrade.new, &found)?;
    // Both are there; the old one can be chosen.
    let menu = ask(console, "grep -c '^[[:space:]]*linux[[:space:]]' /boot/grub/grub.cfg")?;
    expect("entries of both kernels", menu.parse::<u32>().is_ok_and(|count| count >= 2), &menu)
}

fn seed_of(hostname: &str) -> Result<Seed, Failed> {
    Ok(Seed {
        hostname: hostname.into(),
        user: "imagebuilder".into(),
        password: Some(seed::random_password()?),
        ssh_keys: Vec::new(),
    })
}

fn boot(images: &Path, role: &str, firmware_name: &str, firmware: Firmware) -> Result<(), Failed> {
    let image = images.join(format!("{role}.qcow2"));
    let before = std::fs::metadata(&image)?.modified()?;
    let distro = std::env::var("DISTRO").unwrap_or_else(|_| "debian_bookworm".into());
    let intent = plan::load_bundle(&Path::new(env!("CARGO_MANIFEST_DIR")).join("config"), role, &distro)?;
    let seed = seed_of(&format!("{role}-{firmware_name}"))?;
    let size = ImageFile::examine(&image)?.virtual_size + (5 << 30);
    let options = Options { firmware, disk_size: Some(size), ..Options::default() };
    let mut log = std::fs::File::create(images.join(format!("{role}-{firmware_name}.log")))?;
    let mut machine = Prepared::new(&image, &seed, &options)?.start(move |bytes| {
        let _ = log.write_all(bytes);
    })?;
    let console = &mut machine.console;
    let result = log_in_and_look(console, &seed, &intent, firmware);
    if let Err(failed) = result {
        // What was going on, while the machine can still tell.
        let mut text = failed.message().unwrap_or_default().to_owned();
        for command in ["systemctl --failed --plain --no-legend", "journalctl -b -p warning --no-pager | tail -n 40"] {
            if let Ok(result) = console.run(command, COMMAND) {
                text.push_str(&format!("\n$ {command}\n{}", result.output));
            }
        }
        return Err(text.into());
    }
    drop(machine);
    expect("the image file was not touched", std::fs::metadata(&image)?.modified()? == before, "")?;
    Ok(())
}

fn log_in_and_look(console: &mut Console, seed: &Seed, intent: &Intent, firmware: Firmware) -> Result<(), Failed> {
    let password = seed.password.as_deref().unwrap_or_default();
    console.log_in(&seed.user, password, LOGIN).map_err(said)?;
    for outcome in checks::run(console, seed, false, &[], &mut |_| {}).map_err(said)? {
        expect(&outcome.name, outcome.passed, &outcome.output)?;
    }
    sysctls(console, intent)?;
    modules(console, intent)?;
    command_line(console, intent)?;
    account_of_itself(console, intent)?;
    started_by(console, firmware)
}

/// The message with the last words of the machine.
fn said(error: imagebuilder::error::Error) -> Failed {
    format!("{error}\n{}", error.rendered_snippet().unwrap_or_default()).into()
}

fn expect(what: &str, holds: bool, output: &str) -> Result<(), Failed> {
    if holds { Ok(()) } else { Err(format!("{what}: {output}").into()) }
}

fn ask(console: &mut Console, command: &str) -> Result<String, Failed> {
    let result = console.run(command, COMMAND).map_err(said)?;
    expect(command, result.status == 0, &result.output)?;
    Ok(result.output.trim().to_owned())
}

/// Blanks and tabs count the same: the kernel prints `4096 131072 6291456` with tabs.
fn squeeze(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn sysctls(console: &mut Console, intent: &Intent) -> Result<(), Failed> {
    let sysctl = &intent.params.kernel.sysctl;
    expect("the documents declare sysctls", !sysctl.is_empty(), "")?;
    for (key, value) in sysctl {
        let found = ask(console, &format!("sysctl -n {key}"))?;
        expect(key, squeeze(&found) == squeeze(&value.to_string()), &format!("is {found}, declared {value}"))?;
    }
    Ok(())
}

fn modules(console: &mut Console, intent: &Intent) -> Result<(), Failed> {
    for (name, module) in &intent.params.kernel.modules {
        if module.load.unwrap_or(!module.blacklist) {
            ask(console, &format!("test -d /sys/module/{}", name.replace('-', "_")))?;
        }
    }
    Ok(())
}

/// Every argument, in the declared order; what huge pages and isolated CPUs ask for is in force.
fn command_line(console: &mut Console, intent: &Intent) -> Result<(), Failed> {
    let line = ask(console, "cat /proc/cmdline")?;
    let mut words = line.split_whitespace();
    let mut value_of = std::collections::BTreeMap::new();
    for argument in &intent.params.kernel.command_line {
        let value = argument.value.as_ref().map(ToString::to_string);
        let word = value.iter().fold(argument.name.clone(), |name, value| format!("{name}={value}"));
        expect(&format!("`{word}` on the kernel command line, in order"), words.any(|found| found == word), &line)?;
        value_of.insert(argument.name.as_str(), value.unwrap_or_default());
    }
    if let Some(count) = value_of.get("hugepages") {
        let found = ask(console, "cat /proc/sys/vm/nr_hugepages")?;
        expect("huge pages", found == *count, &format!("{found} of {count}"))?;
    }
    if let Some(cpus) = value_of.get("isolcpus") {
        let found = ask(console, "cat /sys/devices/system/cpu/isolated")?;
        expect("isolated CPUs", found == *cpus, &found)?;
    }
    Ok(())
}

/// `/etc/imagebuilder/meta` can be read by everybody and names the image.
fn account_of_itself(console: &mut Console, intent: &Intent) -> Result<(), Failed> {
    let text = ask(console, "runuser -u nobody -- base64 -w 0 /etc/imagebuilder/meta")?;
    let bytes = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, text.as_bytes())?;
    let parsed = meta::parse(&bytes)?;
    let name = parsed.header.get("name").map(|name| name.trim_matches('"')).unwrap_or_default();
    expect("the name in /etc/imagebuilder/meta", name == intent.image, name)
}

fn started_by(console: &mut Console, firmware: Firmware) -> Result<(), Failed> {
    match firmware {
        Firmware::Bios => ask(console, "test ! -e /sys/firmware/efi").map(drop),
        Firmware::Uefi => ask(console, "test -e /sys/firmware/efi").map(drop),
        Firmware::UefiSecure => {
            // Four bytes of attributes, then the value (UEFI specification, section 3.3).
            let variable = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";
            let found = squeeze(&ask(console, &format!("od -An -t u1 -j 4 -N 1 {variable}"))?);
            expect("Secure Boot is on", found == "1", &found)
        }
    }
}
