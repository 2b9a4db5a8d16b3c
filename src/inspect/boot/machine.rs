//! A virtual machine around an image: QEMU with an overlay that takes all writes, and a seed disk.
//!
//! Owns: [`Options`], the command line of QEMU, [`Machine`], which ends with its handle. The image is opened read-only
//! below a qcow2 overlay in a temporary folder (<https://www.qemu.org/docs/master/system/invocation.html>).

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use super::console::Console;
use super::firmware::{Firmware, Ovmf};
use super::seed::Seed;
use crate::error::{Context, Error, Kind, Result};

/// QEMU gives this one to the first network adapter.
pub const FIRST_MAC: &str = "52:54:00:12:34:56";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Accel {
    /// QEMU translates every instruction: slow, and the same everywhere.
    #[default]
    Tcg,
    /// The kernel's virtual machines; needs access to /dev/kvm.
    Kvm,
}

#[derive(Debug, Clone)]
pub struct Options {
    pub firmware: Firmware,
    pub accel: Accel,
    pub memory_mib: u32,
    pub cpus: u32,
    /// Size of the disk the machine sees, in bytes; at least that of the image.
    pub disk_size: Option<u64>,
    /// A port of this host's loopback address that leads to the machine's ssh.
    pub ssh_port: Option<u16>,
    /// A machine that we talk to may start again by itself; else that is its end.
    pub reboots: bool,
    /// How the machine sees the image.
    pub medium: Medium,
    /// A raw disk beside it, read-only.
    pub second_disk: Option<PathBuf>,
}

/// What an image is put into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Medium {
    #[default]
    Disk,
    Cd,
    UsbStick,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            firmware: Firmware::default(),
            accel: Accel::default(),
            memory_mib: 2048,
            cpus: 2,
            disk_size: None,
            ssh_port: None,
            reboots: false,
            medium: Medium::default(),
            second_disk: None,
        }
    }
}

/// What an image file says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageFile {
    /// The name QEMU has for the format.
    pub format: &'static str,
    pub virtual_size: u64,
}

impl ImageFile {
    /// A qcow2 file begins with `QFI\xfb` and has its virtual size at byte 24, big-endian; a VMDK with `KDMV` and its
    /// sectors at byte 12, little-endian; a VHD ends with a sector that begins with `conectix` and has its size at byte
    /// 48, big-endian. Anything else is raw.
    pub fn examine(path: &Path) -> Result<Self> {
        let context = || format!("reading {}", path.display());
        let file = File::open(path).with_context(context)?;
        let length = file.metadata().with_context(context)?.len();
        let (mut first, mut last) = ([0; 512], [0; 512]);
        if length >= 512 {
            file.read_exact_at(&mut first, 0).with_context(context)?;
            file.read_exact_at(&mut last, length - 512).with_context(context)?;
        }
        let number = |sector: &[u8; 512], at: usize| std::array::from_fn::<u8, 8, _>(|index| sector[at + index]);
        let known = |format, virtual_size| Ok(ImageFile { format, virtual_size });
        if first.starts_with(b"QFI\xfb") {
            return known("qcow2", u64::from_be_bytes(number(&first, 24)));
        }
        if first.starts_with(b"KDMV") {
            return known("vmdk", u64::from_le_bytes(number(&first, 12)).saturating_mul(512));
        }
        if last.starts_with(b"conectix") {
            return known("vpc", u64::from_be_bytes(number(&last, 48)));
        }
        if length == 0 || length % 512 != 0 || first[257..].starts_with(b"ustar") {
            return Err(Error::new(Kind::Usage, format!("{} is not a disk image", path.display()))
                .hint("expected a qcow2, VMDK or VHD file, or a raw disk of whole sectors"));
        }
        Ok(ImageFile { format: "raw", virtual_size: length })
    }
}

/// What a machine starts from.
#[derive(Debug, Clone, Copy)]
enum Start<'a> {
    /// The overlay over an image.
    Image(&'a Path),
    /// Where an iPXE script is.
    Network(&'a str),
}

/// A machine ready to start: the overlay, the seed and the firmware's variables are made. Everything temporary goes
/// when this is dropped.
pub struct Prepared {
    command: Command,
    scratch: tempfile::TempDir,
    reboots: bool,
}

impl Prepared {
    pub fn new(image: &Path, seed: &Seed, options: &Options) -> Result<Self> {
        Self::seeded(image, Some(seed), options)
    }

    /// An image that brings its own seed gets none.
    pub fn seeded(image: &Path, seed: Option<&Seed>, options: &Options) -> Result<Self> {
        seed.map_or(Ok(()), Seed::check)?;
        let file = ImageFile::examine(image)?;
        if options.disk_size.is_some_and(|size| size < file.virtual_size) {
            let message = format!("the disk must not be smaller than the image, which has {} bytes", file.virtual_size);
            return Err(Error::new(Kind::Usage, message));
        }
        let scratch = tempfile::Builder::new()
            .prefix("imagebuilder-boot-")
            .tempdir()
            .context("creating a temporary folder for the overlay")?;
        let overlay = scratch.path().join("overlay.qcow2");
        make_overlay(image, file, &overlay, options.disk_size)?;
        let seed_disk = seed.map(|seed| (seed, scratch.path().join("seed.img")));
        if let Some((seed, path)) = &seed_disk {
            seed.write(path)?;
        }
        let seed_disk = seed_disk.map(|(_, path)| path);
        Self::with(Start::Image(&overlay), seed_disk.as_deref(), scratch, options)
    }

    /// A machine without a disk that loads what it starts from a web server, by the iPXE of its network adapter. QEMU's
    /// own network has this host's loopback address as 10.0.2.2.
    pub fn from_network(url: &str, options: &Options) -> Result<Self> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:/[]".contains(&byte);
        if !url.bytes().all(plain) {
            return Err(Error::new(Kind::Usage, format!("`{}` is no address to start from", url.escape_debug())));
        }
        let scratch = tempfile::Builder::new().prefix("imagebuilder-boot-").tempdir();
        Self::with(Start::Network(url), None, scratch.context("creating a temporary folder")?, options)
    }

    fn with(start: Start<'_>, seed: Option<&Path>, scratch: tempfile::TempDir, options: &Options) -> Result<Self> {
        let ovmf = options.firmware.ovmf()?.map(|ovmf| copy_variables(ovmf, scratch.path())).transpose()?;
        let mut command = Command::new("qemu-system-x86_64");
        command.args(arguments(start, seed, ovmf.as_ref(), options));
        Ok(Prepared { command, scratch, reboots: options.reboots })
    }

    /// Runs the machine with its serial line on the terminal until it ends. `Ctrl-A X` ends it, too.
    pub fn interact(mut self) -> Result<()> {
        self.command.args(["-chardev", "stdio,id=serial,mux=on,signal=off", "-serial", "chardev:serial"]);
        self.command.args(["-mon", "chardev=serial,mode=readline"]);
        let mut child = spawn(&mut self.command)?;
        let status = child.wait().context("waiting for QEMU")?;
        if status.success() { Ok(()) } else { Err(Error::build(format!("QEMU ended with {status}"))) }
    }

    /// Starts the machine with its serial line in our hands; `listen` hears everything it says.
    pub fn start(mut self, listen: impl FnMut(&[u8]) + Send + 'static) -> Result<Machine> {
        self.command.args(["-chardev", "stdio,id=serial,signal=off", "-serial", "chardev:serial"]);
        self.command.args(["-monitor", "none"]);
        if !self.reboots {
            self.command.arg("-no-reboot");
        }
        self.command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = spawn(&mut self.command)?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Error::build("QEMU has no standard input and output"));
        };
        Ok(Machine { console: Console::new(stdout, stdin, listen), child, _scratch: self.scratch })
    }
}

/// A running machine. It is switched off when dropped.
pub struct Machine {
    pub console: Console,
    child: Child,
    _scratch: tempfile::TempDir,
}

impl Drop for Machine {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(command: &mut Command) -> Result<Child> {
    // SAFETY: prctl is async-signal-safe. QEMU must not outlive us, whatever ends us.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM);
            Ok(())
        });
    }
    command.spawn().map_err(|error| missing("qemu-system-x86_64", &error))
}

fn missing(program: &str, error: &std::io::Error) -> Error {
    let error = Error::build(format!("{error}")).add_context(format!("starting `{program}`"));
    error.hint("`imagebuilder doctor` says what is missing and how to install it")
}

fn make_overlay(image: &Path, file: ImageFile, overlay: &Path, size: Option<u64>) -> Result<()> {
    let image = std::path::absolute(image).with_context(|| format!("finding {}", image.display()))?;
    let mut command = Command::new("qemu-img");
    command.args(["create", "-q", "-f", "qcow2", "-F", file.format, "-b"]).arg(image).arg(overlay);
    command.args(size.map(|size| size.to_string())).stdin(Stdio::null());
    let output = command.output().map_err(|error| missing("qemu-img", &error))?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Error::build(text).add_context("making the overlay with `qemu-img`"))
}

fn copy_variables(ovmf: Ovmf, scratch: &Path) -> Result<Ovmf> {
    let variables = scratch.join("uefi-variables.fd");
    std::fs::copy(&ovmf.variables, &variables).with_context(|| format!("copying {}", ovmf.variables.display()))?;
    Ok(Ovmf { variables, ..ovmf })
}

/// The arguments but for the serial line. JSON takes any path; commas have a meaning in QEMU's own syntax.
fn arguments(start: Start<'_>, seed: Option<&Path>, ovmf: Option<&Ovmf>, options: &Options) -> Vec<OsString> {
    let (accel, cpu) = match options.accel {
        Accel::Tcg => ("tcg,thread=multi", "max"),
        Accel::Kvm => ("kvm", "host"),
    };
    let secure = options.firmware == Firmware::UefiSecure;
    let mut arguments: Vec<OsString> = Vec::new();
    let mut add = |name: &str, value: String| arguments.extend([name.into(), value.into()]);
    let mut machine = String::from("q35");
    if ovmf.is_some() {
        machine.push_str(",pflash0=code,pflash1=variables");
    }
    if secure {
        // The variable store may only be written in system management mode, as on real machines.
        machine.push_str(",smm=on");
    }
    add("-machine", machine);
    add("-accel", accel.into());
    add("-cpu", cpu.into());
    add("-smp", options.cpus.to_string());
    add("-m", options.memory_mib.to_string());
    if secure {
        add("-global", "driver=cfi.pflash01,property=secure,value=on".into());
        add("-global", "ICH9-LPC.disable_s3=1".into());
    }
    add("-display", "none".into());
    add("-vga", "std".into());
    let mut disk = |value: Value| add("-blockdev", value.to_string());
    if let Some(ovmf) = ovmf {
        disk(json!({ "driver": "raw", "node-name": "code", "read-only": true, "file": file(&ovmf.code) }));
        disk(json!({ "driver": "raw", "node-name": "variables", "file": file(&ovmf.variables) }));
    }
    let read_only = options.medium == Medium::Cd;
    if let Start::Image(overlay) = start {
        disk(json!({
            "driver": "qcow2", "node-name": "disk", "discard": "unmap", "read-only": read_only, "file": file(overlay)
        }));
    }
    let others = [("seed", seed), ("second", options.second_disk.as_deref())];
    for (name, path) in others {
        if let Some(path) = path {
            disk(json!({ "driver": "raw", "node-name": name, "read-only": true, "file": file(path) }));
        }
    }
    if let Start::Image(_) = start {
        let device = match options.medium {
            Medium::Disk => "virtio-blk-pci",
            Medium::Cd => "ide-cd",
            Medium::UsbStick => {
                add("-device", "qemu-xhci".into());
                "usb-storage"
            }
        };
        add("-device", format!("{device},drive=disk,bootindex=1"));
    }
    for (name, path) in others {
        if path.is_some() {
            add("-device", format!("virtio-blk-pci,drive={name}"));
        }
    }
    let forward = options.ssh_port.map(|port| format!(",hostfwd=tcp:127.0.0.1:{port}-:22")).unwrap_or_default();
    let (script, adapter) = match start {
        // Without a ROM nothing is loaded that way.
        Start::Image(_) => (String::new(), "romfile="),
        Start::Network(url) => (format!(",bootfile={url}"), "bootindex=1"),
    };
    add("-netdev", format!("user,id=net{forward}{script}"));
    add("-device", format!("virtio-net-pci,netdev=net,{adapter}"));
    add("-device", "virtio-rng-pci".into());
    arguments.extend(["-nodefaults".into(), "-no-user-config".into()]);
    arguments
}

fn file(path: &Path) -> Value {
    // QEMU takes JSON, which has no other strings than Unicode.
    json!({ "driver": "file", "filename": path.to_string_lossy() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(firmware: Firmware) -> Vec<String> {
        let ovmf = Ovmf { code: "/c,ode".into(), variables: "/vars".into() };
        let options = Options { firmware, ssh_port: Some(2222), ..Options::default() };
        let ovmf = (firmware != Firmware::Bios).then_some(&ovmf);
        let words = arguments(Start::Image(Path::new("/o")), Some(Path::new("/s")), ovmf, &options);
        words.into_iter().map(|word| word.into_string().unwrap()).collect()
    }

    #[test]
    fn secure_boot_guards_its_variables() {
        let secure = words(Firmware::UefiSecure).join(" ");
        assert!(secure.contains("smm=on") && secure.contains("property=secure,value=on"));
        assert!(secure.contains(r#""filename":"/c,ode""#));
        assert!(!words(Firmware::Uefi).join(" ").contains("smm=on"));
        assert!(!words(Firmware::Bios).join(" ").contains("pflash"));
    }

    #[test]
    fn the_image_itself_is_never_named() {
        assert!(words(Firmware::Bios).iter().all(|word| !word.contains("image")));
    }

    #[test]
    fn without_a_disk_the_adapter_knows_where_to_look() {
        let start = Start::Network("http://10.0.2.2:80/boot.ipxe");
        let words = arguments(start, None, None, &Options::default());
        let words: Vec<String> = words.into_iter().map(|word| word.into_string().unwrap()).collect();
        assert!(!words.iter().any(|word| word.contains("-blk-") || word.contains("romfile")), "{words:?}");
        assert!(words.contains(&"user,id=net,bootfile=http://10.0.2.2:80/boot.ipxe".to_owned()), "{words:?}");
        assert!(Prepared::from_network("http://x/,smb=/", &Options::default()).is_err());
    }

    #[test]
    fn formats_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        let mut header = b"QFI\xfb\0\0\0\x03".to_vec();
        header.extend([0; 16]);
        header.extend(19_u64.to_be_bytes());
        header.resize(512, 0);
        std::fs::write(&path, &header).unwrap();
        assert_eq!(ImageFile::examine(&path).unwrap(), ImageFile { format: "qcow2", virtual_size: 19 });
        let mut header = b"KDMV\x03\0\0\0\x01\0\x03\0".to_vec();
        header.extend(5_u64.to_le_bytes());
        header.resize(512, 0);
        std::fs::write(&path, &header).unwrap();
        assert_eq!(ImageFile::examine(&path).unwrap(), ImageFile { format: "vmdk", virtual_size: 2560 });
        let mut fixed = vec![0; 2560];
        fixed[2048..2056].copy_from_slice(b"conectix");
        fixed[2096..2104].copy_from_slice(&2048_u64.to_be_bytes());
        std::fs::write(&path, &fixed).unwrap();
        assert_eq!(ImageFile::examine(&path).unwrap(), ImageFile { format: "vpc", virtual_size: 2048 });
        std::fs::write(&path, [0; 1024]).unwrap();
        assert_eq!(ImageFile::examine(&path).unwrap(), ImageFile { format: "raw", virtual_size: 1024 });
        std::fs::write(&path, b"text").unwrap();
        assert_eq!(ImageFile::examine(&path).unwrap_err().kind(), Kind::Usage);
    }
}
