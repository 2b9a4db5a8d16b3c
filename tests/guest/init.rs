//! The first process of the guest: loads modules, mounts the disk, says what is on it, grows it, switches off.

use std::ffi::CString;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::Duration;

use super::listing;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Around the lines that matter, among those of the kernel.
pub const BEGIN: &str = "guest: listing";
pub const END: &str = "guest: end";
pub const MARK: &str = "|";
/// The file that tells the modules to load, one path a line.
pub const MODULES: &str = "modules";
/// Written after growing.
pub const NEW_FILE: &str = "written-by-the-kernel";
const DISK: &str = "/dev/vda";
const MOUNTED: &str = "/mnt";

/// `_IOW('f', 16, __u64)`, linux/ext4.h: grow to so many blocks.
const EXT4_IOC_RESIZE_FS: libc::Ioctl = 0x4008_6610_u32 as libc::Ioctl;

pub fn main() -> ! {
    if let Err(error) = work() {
        println!("guest: failed: {error}");
    }
    rustix::fs::sync();
    // SAFETY: nothing of this process is needed any more.
    unsafe {
        libc::reboot(libc::RB_POWER_OFF);
        libc::_exit(1)
    }
}

fn work() -> Result<()> {
    use rustix::mount::{MountFlags, mount, unmount};
    for module in std::fs::read_to_string(Path::new("/").join(MODULES))?.lines() {
        load(Path::new(module)).map_err(|error| format!("loading {module}: {error}"))?;
    }
    for folder in ["/dev", "/proc", MOUNTED] {
        std::fs::create_dir_all(folder)?;
    }
    mount("dev", "/dev", "devtmpfs", MountFlags::empty(), None)?;
    mount("proc", "/proc", "proc", MountFlags::empty(), None)?;
    let mut tries = 100;
    while !Path::new(DISK).exists() && tries > 0 {
        std::thread::sleep(Duration::from_millis(100));
        tries -= 1;
    }
    mount(DISK, MOUNTED, "ext4", MountFlags::empty(), None).map_err(|error| format!("mounting: {error}"))?;
    println!("{BEGIN}");
    for line in listing::of_folder(Path::new(MOUNTED))? {
        println!("{MARK}{line}");
    }
    println!("{END}");
    if std::fs::read_to_string("/proc/cmdline")?.contains("guest=grow") {
        grow()?;
    }
    unmount(MOUNTED, rustix::mount::UnmountFlags::empty()).map_err(|error| format!("unmounting: {error}"))?;
    println!("guest: done");
    Ok(())
}

fn load(path: &Path) -> Result<()> {
    let file = File::open(path)?;
    let none = CString::default();
    // SAFETY: finit_module(2) reads the open file and the empty list of parameters.
    let done = unsafe { libc::syscall(libc::SYS_finit_module, file.as_raw_fd(), none.as_ptr(), 0) };
    let error = std::io::Error::last_os_error();
    match done {
        0 => Ok(()),
        _ if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
        _ => Err(error.into()),
    }
}

/// As resize2fs(8) does it for a mounted file system.
fn grow() -> Result<()> {
    let size = std::fs::read_to_string("/sys/block/vda/size").or_else(|_| {
        std::fs::create_dir_all("/sys")?;
        rustix::mount::mount("sys", "/sys", "sysfs", rustix::mount::MountFlags::empty(), None)?;
        std::fs::read_to_string("/sys/block/vda/size")
    })?;
    let blocks: u64 = size.trim().parse::<u64>()? / 8;
    let root = File::open(MOUNTED)?;
    // SAFETY: the request reads one u64.
    if unsafe { libc::ioctl(root.as_raw_fd(), EXT4_IOC_RESIZE_FS, &blocks) } != 0 {
        return Err(format!("growing: {}", std::io::Error::last_os_error()).into());
    }
    drop(root);
    std::fs::write(Path::new(MOUNTED).join(NEW_FILE), vec![b'n'; 3 << 20])?;
    let about = rustix::fs::statvfs(MOUNTED)?;
    println!("guest: grown to {} blocks of {}", blocks, about.f_frsize);
    Ok(())
}
