//! Rules on one image's documents: AirshipImage, the NodeProfiles beside it, the ImageConfiguration that builds it.
//!
//! Owns: the table [`RULES`] and [`run`]. Sizes against content are checked when the disk is packed.

mod image;
mod kernel;
mod network;
mod node;
mod partitions;
mod realm;
#[cfg(test)]
mod tests;

use super::{Finding, Severity};
use crate::api::{AirshipImage, ImageConfiguration};
use crate::document::{Diagnostic, Node};

/// One image and what belongs to it.
pub struct Subject<'a> {
    pub image: &'a AirshipImage,
    /// The document `image` was decoded from.
    pub document: &'a Node,
    /// The NodeProfile documents rendered with it.
    pub profiles: Vec<&'a Node>,
    /// What is to be produced, with its document, when that is known.
    pub executor: Option<(&'a ImageConfiguration, &'a Node)>,
}

/// One rule.
pub struct Rule {
    pub id: &'static str,
    pub severity: Severity,
    /// What has to hold.
    pub title: &'static str,
    /// What happens otherwise.
    pub why: &'static str,
    /// How to mend it.
    pub mend: &'static str,
    check: fn(&Subject) -> Vec<Diagnostic>,
}

macro_rules! rules {
    ($($severity:ident $id:literal: $check:path, $title:literal, $why:literal, $mend:literal;)*) => {
        &[$(Rule {
            id: $id, severity: Severity::$severity, title: $title, why: $why, mend: $mend, check: $check
        }),*]
    };
}

pub const RULES: &[Rule] = rules! {
    Error "node-profile": image::node_profile,
        "`spec.nodeProfile` names a NodeProfile that is there",
        "nothing would be copied into the image's areas",
        "add the NodeProfile as a resource, or correct the name";
    Error "patch-after-copy": image::patch_after_copy,
        "the areas of the AirshipImage equal those of its NodeProfile",
        "a patch after the copy would be lost on one side",
        "patch the NodeProfile, in a component listed before `functions/replacements`";
    Error "release-known": image::release_known,
        "distribution and release are ones that images can be built of",
        "nobody knows which packages such an image starts from",
        "take one of the folders below `functions/images`";
    Error "architecture-known": image::architecture_known,
        "the architecture is one that images can be built for",
        "kernel, boot loader and scripts of the image could not be run",
        "write `amd64`, or leave it out";
    Error "repositories": image::repositories,
        "there is a repository to install from, and each is complete",
        "no package could be found or trusted",
        "give each repository `source`, `suite`, `components` and `keyring`";
    Error "repository-source": network::repository_source,
        "a repository has an address that packages can be fetched from",
        "the build would stop at its first download",
        "write `http://host/path` or `https://host:port/path`, the port from 1 to 65535";
    Error "password-hash": image::password_hash,
        "passwords are crypt(5) hashes, never clear text",
        "documents, images and reports would carry the password",
        "make a hash with `openssl passwd -6`";
    Error "clear-text-password": node::clear_text_password,
        "cloud-init and kubelet settings hold no password in clear text",
        "whoever has the image, or may list processes, has the password",
        "give hashes (`hashed_passwd`), or hand secrets over when the node is provisioned";
    Error "output-file-name": image::output_file_name,
        "the image's file name fits its type",
        "whoever takes the file by its name takes it for something else",
        "change the extension of `outputFileName`, or `type`";
    Warning "site-data": realm::site_data,
        "an image that many nodes share has no addresses, host names and keys of one node or site",
        "nodes would share them, and each site would need an image of its own",
        "hand them over when a node is provisioned (`explain` names the realm of each field)";
    Error "mount-once": partitions::mount_once,
        "no two partitions share a mount point",
        "one would hide the other",
        "change or remove one of them";
    Error "root-present": partitions::root_present,
        "a partition is mounted at `/`",
        "the system would have no place",
        "give one partition `mount: /`";
    Error "partition-size": partitions::size,
        "each partition has an end or a size, and what follows content has some",
        "its place on the disk would be unknown",
        "give `part_end` or `size`, not both";
    Error "partition-extent": partitions::extent,
        "each partition lies on the disk and has a size",
        "the partition table could not be written",
        "raise `qcow_capacity`, or end the partition earlier";
    Error "partition-overlap": partitions::overlap,
        "no two partitions share a place on the disk",
        "each would destroy the other",
        "start the second where the first ends";
    Error "boot-partition": partitions::bootable,
        "there is an EFI system partition or a BIOS boot partition",
        "no firmware could start the image",
        "add `flags: [esp]` to the partition of `/boot/efi`, or a small one with `flags: [bios_grub]`";
    Warning "boot-both-ways": partitions::bootable_both_ways,
        "the image boots by BIOS as well as by UEFI",
        "machines set to the other way do not start it",
        "add the partition that the other firmware wants";
    Warning "root-first": partitions::root_first,
        "root is the first partition",
        "Ironic places config drives relative to a root in partition 1",
        "list the partition of `/` first; its place on the disk can stay";
    Error "huge-pages": kernel::huge_pages,
        "huge pages are counted behind their size, and sizes are ones that the processor has",
        "the kernel reserves none, or pages of another size",
        "write `hugepagesz` (2M or 1G) directly before its `hugepages`";
    Warning "huge-pages-twice": kernel::huge_pages_twice,
        "the command line and sysctl ask for the same number of huge pages",
        "the sysctl is applied later and wins",
        "keep one of them";
    Error "cpu-list": kernel::cpu_lists,
        "CPU lists of the command line are lists",
        "the kernel ignores what it cannot read, and isolates nothing",
        "write `1-3,8` as the kernel's documentation has it";
    Error "isolated-cpus": kernel::isolated_cpus,
        "CPUs reserved for the system or for interrupts are not isolated",
        "what is bound to them would run where nothing else may",
        "take the CPUs out of one of the lists";
    Error "sysctl-name": kernel::sysctl_names,
        "sysctl keys are names, each given once",
        "sysctl refuses the line, or the last spelling wins by chance",
        "write `net.ipv4.ip_forward`, without blanks or `=`";
    Error "command-line": kernel::command_line,
        "arguments of the kernel are words, name apart from value",
        "the kernel would read several arguments, or another one",
        "write `{name: x, value: y}`; leave `root` to the builder";
    Warning "module-load": kernel::module_load,
        "no module is both loaded at boot and blacklisted",
        "a blacklist stops loading by alias only: the module is loaded",
        "keep `load` or `blacklist`";
    Warning "kernel-package": kernel::kernel_package,
        "a package brings the kernel that modules are loaded into",
        "modules cannot be there without one, and the image does not boot",
        "add `linux-image-amd64` (Debian) or `linux-image-generic` (Ubuntu)";
    Error "kubelet-arguments": node::kubelet_arguments,
        "kubelet arguments are names without dashes in front, with values that the kubelet takes",
        "the kubelet does not start",
        "write `max-pods: 110`; values are those of `kubelet --help`";
    Error "ports": network::ports,
        "ports are numbers from 1 to 65535, and no two services of the kubelet share one",
        "the service does not start",
        "choose a free port";
    Error "host-entries": network::hosts,
        "each line of `/etc/hosts` has one address and names that no other address of its family has",
        "only the first of two lines counts, and which is first is nobody's choice",
        "keep one address per name";
    Error "uid-once": node::uid_once,
        "no two users share a number, and 0 is root's",
        "each could read and change what belongs to the other",
        "leave `uid` out, or choose another";
    Warning "system-uid": node::system_uid,
        "numbers of system accounts are below 1000, those of people are not",
        "tools hide or show, and ban or allow accounts by their number",
        "change `uid` or `system`";
    Error "limit-type": node::limit_type,
        "limits are `hard`, `soft` or `-`",
        "pam_limits ignores the line",
        "write one of the three";
    Error "file-entry": node::file_entry,
        "files have an absolute path and what their state needs",
        "there would be nothing to write, or no place for it",
        "a link needs `target`, a file one kind of content, a folder and what is absent none";
    Warning "file-mode": node::file_mode,
        "files are not writable by everybody, nor folders without entry",
        "any process of the node may change the file; nobody may enter the folder",
        "`0644` for files, `0755` for folders";
    Error "unit-name": node::unit_name,
        "units have a name with the suffix of their kind",
        "systemd does not know what to do with the file",
        "write `x.service`, `x.timer` ...";
    Error "unit-install": node::unit_install,
        "a unit that is enabled can be: it is not masked and has an `[Install]` section",
        "it would not be started at boot",
        "add `[Install]` with `WantedBy=multi-user.target`, or leave `enabled` out";
    Warning "unit-package": node::unit_package,
        "a package of the set brings each unit that has no text of its own",
        "there is nothing to enable; only a dependency could bring it",
        "add the package to `software.packages`";
};

/// Runs every rule, in the order of the table.
pub fn run(subject: &Subject) -> Vec<Finding> {
    let found = |rule: &Rule| {
        let wrap = |diagnostic| Finding { rule: rule.id, severity: rule.severity, diagnostic };
        (rule.check)(subject).into_iter().map(wrap).collect::<Vec<_>>()
    };
    RULES.iter().flat_map(found).collect()
}

impl Subject<'_> {
    /// A diagnostic on the value at a JSON pointer below `spec.params`, or on what comes nearest above it.
    fn on(&self, pointer: &str, message: impl Into<String>) -> Diagnostic {
        on(self.document, &format!("/spec/params{pointer}"), message)
    }
}

fn on(document: &Node, pointer: &str, message: impl Into<String>) -> Diagnostic {
    let mut pointer = pointer;
    loop {
        if let Some(node) = document.pointer(pointer) {
            return Diagnostic::on(node, message);
        }
        pointer = pointer.rsplit_once('/').map_or("", |(parent, _)| parent);
    }
}

/// A key as a token of a JSON pointer.
fn token(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}
