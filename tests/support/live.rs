//! The ephemeral ISO, booted: from a CD and from a disk, with a stale config drive of an earlier deployment beside it.
//!
//! Owns: [`boot`], the seed that a machine is looked at with (put into the image by re-seeding it), and the stale drive.
//! Used by `boot.rs`.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use imagebuilder::build::reseed::Base;
use imagebuilder::format::disk::DiskImage;
use imagebuilder::format::disk::sums::Digests;
use imagebuilder::format::fat::{self, FatType};
use imagebuilder::format::{gpt, raw};
use imagebuilder::inspect::boot::machine::{FIRST_MAC, Medium, Prepared};
use imagebuilder::inspect::boot::{Console, Firmware, Options};
use imagebuilder::report::Reporter;
use imagebuilder::seed::{self, Identity, Input, Request, Seed, nocloud};
use imagebuilder::serve::Server;
use imagebuilder::tree::{Meta, Mtime, Tree, TreePath};
use libtest_mimic::Failed;
use serde_json::json;
use uuid::Uuid;

use super::{COMMAND, LOGIN, ask, expect, said, started_by};

const USER: &str = "imagebuilder";
const HOSTNAME: &str = "first-node";
const ADDRESS: &str = "10.0.2.77";
const MIB: u64 = 1 << 20;

pub fn boot(images: &Path, name: &str, firmware: Firmware, medium: Medium, stale: bool) -> Result<(), Failed> {
    let folder = tempfile::tempdir_in(images)?;
    let password = imagebuilder::inspect::boot::seed::random_password()?;
    let image = reseeded(&images.join("ephemeral.iso"), folder.path(), &password)?;
    let second_disk = if stale { Some(stale_drive(folder.path())?) } else { None };
    let options = Options { firmware, medium, second_disk, ..Options::default() };
    let mut log = File::create(images.join(format!("ephemeral-{name}.log")))?;
    let mut machine = Prepared::seeded(&image, None, &options)?.start(move |bytes| {
        let _ = log.write_all(bytes);
    })?;
    let found = Expected { data_source: "ConfigDrive", network: true, stale };
    log_in_and_look(&mut machine.console, &password, firmware, found)
}

/// What differs from start to start.
struct Expected {
    data_source: &'static str,
    /// The network of the seed is set up.
    network: bool,
    stale: bool,
}

/// iPXE, kernel, squashfs and seed over HTTP, from the program's own server.
pub fn boot_from_network(images: &Path) -> Result<(), Failed> {
    let folder = tempfile::tempdir_in(images)?;
    for file in ["ipxe", "vmlinuz", "initrd.img", "squashfs"] {
        let name = format!("ephemeral.{file}");
        std::fs::hard_link(images.join(&name), folder.path().join(&name))?;
    }
    let password = imagebuilder::inspect::boot::seed::random_password()?;
    let seed = seed(&password)?;
    for (part, bytes) in [
        ("user-data", seed.user_data.clone()),
        ("meta-data", nocloud::meta_data(&seed.meta_data)?),
        ("vendor-data", Vec::new()),
        ("network-config", nocloud::network_config(&seed.network_data)?),
    ] {
        std::fs::write(folder.path().join(format!("ephemeral.{part}")), bytes)?;
    }
    let server = Server::bind(folder.path(), ([127, 0, 0, 1], 0).into())?;
    let url = format!("http://10.0.2.2:{}/boot.ipxe", server.address()?.port());
    // Ends with the test program.
    std::thread::spawn(move || server.run(&Reporter::quiet()));
    // The squashfs lies in memory.
    let options = Options { memory_mib: 3072, ..Options::default() };
    let mut log = File::create(images.join("ephemeral-netboot.log"))?;
    let mut machine = Prepared::from_network(&url, &options)?.start(move |bytes| {
        let _ = log.write_all(bytes);
    })?;
    // Debian 12's cloud-init asks no web server for the network's configuration.
    let found = Expected { data_source: "NoCloud", network: false, stale: false };
    log_in_and_look(&mut machine.console, &password, Firmware::Bios, found)
}

fn log_in_and_look(
    console: &mut Console,
    password: &str,
    firmware: Firmware,
    expected: Expected,
) -> Result<(), Failed> {
    console.log_in(USER, password, LOGIN).map_err(said)?;
    look(console, firmware, &expected).map_err(|failed| {
        let mut text = failed.message().unwrap_or_default().to_owned();
        for command in ["cloud-init status --long", "journalctl -b -p warning --no-pager | tail -n 40", "lsblk -f"] {
            if let Ok(result) = console.run(command, COMMAND) {
                text.push_str(&format!("\n$ {command}\n{}", result.output));
            }
        }
        text.into()
    })
}

/// The image with a seed that lets us in.
fn reseeded(base: &Path, folder: &Path, password: &str) -> Result<PathBuf, Failed> {
    let image = folder.join("site.iso");
    Base::open(base)?.write(&seed(password)?, &image, Digests::NONE)?;
    Ok(image)
}

fn seed(password: &str) -> Result<Seed, Failed> {
    let user = json!({
        "name": USER, "shell": "/bin/bash", "sudo": "ALL=(ALL) NOPASSWD:ALL",
        "lock_passwd": false, "plain_text_passwd": password,
    });
    let file = json!({ "path": "/etc/from-the-seed", "content": "written by cloud-init\n" });
    let user_data = json!({ "hostname": HOSTNAME, "users": [user], "write_files": [file], "ssh_pwauth": false });
    let network_data = json!({
        "links": [{ "id": "first", "type": "phy", "ethernet_mac_address": FIRST_MAC }],
        "networks": [{
            "id": "net", "link": "first", "type": "ipv4", "ip_address": ADDRESS, "netmask": "255.255.255.0",
            "routes": [{ "network": "0.0.0.0", "netmask": "0.0.0.0", "gateway": "10.0.2.2" }],
        }],
        "services": [{ "type": "dns", "address": "10.0.2.3" }],
    });
    let bytes = |name: &str, text: String| Input::Bytes(name.into(), text.into_bytes());
    let seed = seed::load(&Request {
        user_data: bytes("user_data", format!("#cloud-config\n{user_data}\n")),
        network_data: bytes("network_data.json", format!("{network_data}\n")),
        identity: Identity { site: "boot-test".into(), hostname: Some(HOSTNAME.into()) },
    })?;
    Ok(seed)
}

/// A disk whose only partition is a config drive with another name for the node.
fn stale_drive(folder: &Path) -> Result<PathBuf, Failed> {
    let meta_data = json!({ "uuid": Uuid::from_u128(1).to_string(), "hostname": "stale", "name": "stale" });
    let mut files = Tree::new();
    for (name, text) in [
        ("meta_data.json", format!("{meta_data}\n")),
        ("user_data", "#cloud-config\nhostname: stale\n".to_owned()),
        ("network_data.json", "{\"links\": [], \"networks\": [], \"services\": []}\n".to_owned()),
    ] {
        let path = TreePath::new(format!("openstack/latest/{name}")).ok_or("a path")?;
        files.write_file(&path, text, Meta::root(0o600), &"stale".into())?;
    }
    let (start, size) = (MIB, 16 * MIB);
    let drive = fat::make(
        &files,
        &fat::Options {
            size,
            fat_type: FatType::Fat16,
            volume_id: 7,
            label: "CONFIG-2".into(),
            hidden_sectors: (start / gpt::SECTOR) as u32,
            latest: Mtime::default(),
        },
    )?;
    let partition = gpt::Partition {
        type_guid: Uuid::from_u128(0x0FC63DAF_8483_4772_8E79_3D69D8477DE4),
        guid: Uuid::from_u128(2),
        first_lba: start / gpt::SECTOR,
        last_lba: (start + size) / gpt::SECTOR - 1,
        attributes: 0,
        name: "config-2".into(),
    };
    let disk_size = start + size + MIB;
    let table =
        gpt::Table { disk_size, disk_guid: Uuid::from_u128(3), partitions: vec![partition], boot_code: Vec::new() };
    let mut disk = DiskImage::new(disk_size, table.layout()?.extents().into())?;
    disk.place(start, drive)?;
    let path = folder.join("stale.raw");
    raw::write(&disk, &File::create(&path)?, &|_| ())?;
    Ok(path)
}

fn look(console: &mut Console, firmware: Firmware, expected: &Expected) -> Result<(), Failed> {
    let status = console.run("cloud-init status --wait --long", LOGIN).map_err(said)?;
    expect("cloud-init is done", status.status == 0, &status.output)?;
    let found = ask(console, "hostname")?;
    expect("the host name of the seed", found == HOSTNAME, &found)?;
    let found = ask(console, "cat /etc/from-the-seed")?;
    expect("the file of the seed", found == "written by cloud-init", &found)?;
    let found = ask(console, "ip -4 -o addr show scope global")?;
    expect("the address of the seed", found.contains(&format!("{ADDRESS}/24")) || !expected.network, &found)?;
    let found = ask(console, "cat /run/cloud-init/result.json")?;
    expect("the data source", found.contains(expected.data_source), &found)?;
    let found = ask(console, "findmnt -no FSTYPE /")?;
    expect("a live system", found == "overlay", &found)?;
    let found = ask(console, "blkid -L config-2 || true; blkid -L CONFIG-2 || true")?;
    expect("the stale drive is there", found.contains("/dev/vd") || !expected.stale, &found)?;
    let found = ask(
        console,
        "systemctl is-system-running --wait; systemctl --failed --plain --no-legend | tee /dev/stderr | wc -l",
    )?;
    expect("no failed units", found.ends_with('0'), &found)?;
    started_by(console, firmware)
}
