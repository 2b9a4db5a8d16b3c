//! The hygiene rules, one function each. Why each is there stands in its row.

use super::{Rule, Seal};
use crate::error::Result;
use crate::tree::{Content, Kind, Meta, TreePath};

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "machine-id",
        description: "`/etc/machine-id` is empty, so that every node makes its own and presets are not applied anew (machine-id(5)); D-Bus' copy is a link to it",
        apply: machine_id,
    },
    Rule {
        id: "ssh-host-keys",
        description: "no `/etc/ssh/ssh_host_*`; keys are made on first boot",
        apply: ssh_host_keys,
    },
    Rule {
        id: "random-seeds",
        description: "no saved random seeds and no credential secret of systemd",
        apply: random_seeds,
    },
    Rule {
        id: "host-identity",
        description: "no NVMe host names, DHCP leases or file-system archives that a package's script made on the build machine",
        apply: host_identity,
    },
    Rule {
        id: "resolv-conf",
        description: "no `/etc/resolv.conf` with servers; a link to the resolver of the node stays",
        apply: resolv_conf,
    },
    Rule {
        id: "runtime-folders",
        description: "nothing in `/tmp`, `/var/tmp`, `/run`, `/proc`, `/sys`, no plain files in `/dev`; `/tmp` and `/var/tmp` have mode 1777, and they and `/run` the time of the epoch",
        apply: runtime_folders,
    },
    Rule {
        id: "logs",
        description: "no files below `/var/log` but the empty login records; folders stay with their modes",
        apply: logs,
    },
    Rule {
        id: "apt-caches",
        description: "no package lists, archives and binary caches of apt; its folders stay",
        apply: apt_caches,
    },
    Rule {
        id: "dpkg-backups",
        description: "no `*-old` files and locks of dpkg, nothing in `/var/backups`, no `.dpkg-new`, `.dpkg-tmp`, `.dpkg-old`",
        apply: dpkg_backups,
    },
    Rule {
        id: "caches",
        description: "no caches that are made anew when needed: ldconfig's aux-cache, debconf's `*-old`, man-db, fontconfig, AppArmor, logrotate's state, timer stamps",
        apply: caches,
    },
    Rule {
        id: "python-bytecode",
        description: "no `*.pyc`, no empty `__pycache__`: their bytes depend on the run that made them",
        apply: python_bytecode,
    },
    Rule {
        id: "account-backups",
        description: "no `/etc/passwd-`, `/etc/shadow-` and the like, no lock files",
        apply: account_backups,
    },
    Rule {
        id: "password-days",
        description: "no day of a password change in shadow(5) is later than the epoch of the build",
        apply: password_days,
    },
    Rule { id: "root-history", description: "no shell history and caches of root", apply: root_history },
    Rule {
        id: "cloud-init-instance",
        description: "no instance data of cloud-init and no network configuration it rendered",
        apply: cloud_init_instance,
    },
    Rule { id: "sockets", description: "no sockets: nobody listens at them any more", apply: sockets },
    Rule {
        id: "times",
        description: "no modification time is later than the epoch of the build; those that are become the epoch",
        apply: times,
    },
];

fn machine_id(seal: &mut Seal) -> Result<()> {
    let path = TreePath::literal("etc/machine-id");
    let meta = Meta { mtime: seal.epoch, ..Meta::root(0o444) };
    seal.tree.write_file(&path, "", meta, &seal.origin)?;
    let dbus = seal.tree.resolve_parent(&TreePath::literal("var/lib/dbus/machine-id"))?;
    if seal.tree.contains(&dbus) {
        seal.tree.write_symlink(&dbus, "/etc/machine-id", seal.epoch, &seal.origin)?;
    }
    Ok(())
}

fn ssh_host_keys(seal: &mut Seal) -> Result<()> {
    seal.remove_below("etc/ssh", |path, _| path.file_name().starts_with(b"ssh_host_"))
}

fn random_seeds(seal: &mut Seal) -> Result<()> {
    seal.remove(&[
        "boot/efi/loader/random-seed",
        "boot/loader/random-seed",
        "var/lib/private/systemd/random-seed",
        "var/lib/systemd/credential.secret",
        "var/lib/systemd/random-seed",
        "var/lib/urandom/random-seed",
    ])
}

fn host_identity(seal: &mut Seal) -> Result<()> {
    seal.remove(&["etc/nvme/hostid", "etc/nvme/hostnqn"])?;
    for folder in ["etc/lvm/archive", "etc/lvm/backup", "var/lib/dhcp", "var/lib/dhcpcd", "var/lib/systemd/timesync"] {
        seal.remove_files(folder)?;
    }
    Ok(())
}

fn resolv_conf(seal: &mut Seal) -> Result<()> {
    let path = seal.tree.resolve_parent(&TreePath::literal("etc/resolv.conf"))?;
    match seal.kind(&path) {
        Some(Kind::Symlink(_)) | None => Ok(()),
        Some(_) => seal.remove(&["etc/resolv.conf"]),
    }
}

fn runtime_folders(seal: &mut Seal) -> Result<()> {
    for folder in ["tmp", "var/tmp", "run", "proc", "sys"] {
        seal.empty(folder)?;
    }
    // Mount points that a sandbox made for device nodes.
    seal.remove_below("dev", |_, entry| matches!(entry.kind, Kind::File(_) | Kind::HardLink(_)))?;
    let epoch = seal.epoch;
    for (folder, mode) in [("tmp", Some(0o1777)), ("var/tmp", Some(0o1777)), ("run", None)] {
        let at = seal.tree.resolve(&TreePath::literal(folder))?;
        if let Some(entry) = seal.tree.get_mut(&at).filter(|entry| matches!(entry.kind, Kind::Directory)) {
            entry.meta.mode = mode.unwrap_or(entry.meta.mode);
            // Whether something was in it for a while is chance, too: scripts, and what helps them.
            entry.meta.mtime = epoch;
        }
    }
    Ok(())
}

/// The login records exist empty, because nothing makes them when they are missing (login(1), pam_lastlog(8)).
fn logs(seal: &mut Seal) -> Result<()> {
    const RECORDS: [&str; 4] = ["var/log/btmp", "var/log/faillog", "var/log/lastlog", "var/log/wtmp"];
    let records = RECORDS.map(TreePath::literal);
    seal.remove_below("var/log", |path, entry| {
        let loose = !matches!(entry.kind, Kind::Directory | Kind::Symlink(_)) && !records.contains(path);
        // journald keeps one folder a machine.
        loose || path.is_below(&TreePath::literal("var/log/journal"))
    })?;
    let (epoch, empty) = (seal.epoch, Content::inline(&b""[..]));
    for record in &records {
        if let Some(entry) = seal.tree.get_mut(record).filter(|entry| matches!(entry.kind, Kind::File(_))) {
            if entry.kind != Kind::File(empty.clone()) {
                entry.kind = Kind::File(empty.clone());
                entry.meta.mtime = epoch;
            }
        }
    }
    Ok(())
}

fn apt_caches(seal: &mut Seal) -> Result<()> {
    for folder in ["var/lib/apt/lists", "var/cache/apt", "var/lib/apt/periodic", "var/lib/apt/mirrors"] {
        seal.remove_files(folder)?;
    }
    Ok(())
}

fn dpkg_backups(seal: &mut Seal) -> Result<()> {
    seal.remove_below("var/lib/dpkg", |path, entry| {
        let name = path.file_name();
        let lock = [&b"lock"[..], b"lock-frontend", b"Lock"].contains(&name) && !matches!(entry.kind, Kind::Directory);
        let top = path.parent() == Some(TreePath::literal("var/lib/dpkg"));
        lock || top && name.ends_with(b"-old")
    })?;
    seal.remove_files("var/backups")?;
    // Left by a configuration file's replacement that was cut short. Names inside packages end like this nowhere.
    seal.remove_below("", |path, entry| {
        let name = path.file_name();
        !matches!(entry.kind, Kind::Directory)
            && [&b".dpkg-new"[..], b".dpkg-tmp", b".dpkg-old"].iter().any(|end| name.ends_with(end))
    })
}

fn caches(seal: &mut Seal) -> Result<()> {
    seal.remove(&[
        "var/cache/ldconfig/aux-cache",
        "var/lib/logrotate/status",
        "var/lib/command-not-found/commands.db",
        "var/lib/mlocate/mlocate.db",
        "var/lib/plocate/plocate.db",
    ])?;
    for folder in ["var/cache/man", "var/cache/fontconfig", "var/cache/apparmor", "etc/apparmor.d/cache"] {
        seal.remove_files(folder)?;
    }
    seal.remove_below("var/cache/debconf", |path, _| path.file_name().ends_with(b"-old"))?;
    seal.remove_below("var/lib/systemd/timers", |path, _| path.file_name().starts_with(b"stamp-"))?;
    // ucf's rotated copies of its two tables.
    seal.remove_below("var/lib/ucf", |path, _| {
        let name = path.file_name();
        let (stem, number) = name.split_at(name.iter().rposition(|byte| *byte == b'.').unwrap_or(name.len()));
        [&b"hashfile"[..], b"registry"].contains(&stem) && number.len() == 2
    })
}

fn python_bytecode(seal: &mut Seal) -> Result<()> {
    seal.remove_below("", |path, entry| path.file_name().ends_with(b".pyc") && !matches!(entry.kind, Kind::Directory))?;
    let empty: Vec<TreePath> = seal
        .tree
        .iter()
        .filter(|(path, entry)| path.file_name() == b"__pycache__" && matches!(entry.kind, Kind::Directory))
        .map(|(path, _)| path.clone())
        .filter(|path| seal.tree.below(path).next().is_none() && !seal.kept(path))
        .collect();
    seal.remove_all(empty.into_iter().collect())
}

fn account_backups(seal: &mut Seal) -> Result<()> {
    seal.remove(&[
        "etc/.pwd.lock",
        "etc/group-",
        "etc/gshadow-",
        "etc/passwd-",
        "etc/shadow-",
        "etc/subgid-",
        "etc/subuid-",
    ])?;
    for lock in ["etc/group.lock", "etc/gshadow.lock", "etc/passwd.lock", "etc/shadow.lock"] {
        seal.remove(&[lock])?;
    }
    Ok(())
}

fn password_days(seal: &mut Seal) -> Result<()> {
    let mut accounts = seal.accounts()?;
    accounts.clamp_password_days(seal.epoch.seconds.div_euclid(86_400).max(0));
    accounts.store(seal.tree, seal.epoch, &seal.origin)
}

fn root_history(seal: &mut Seal) -> Result<()> {
    const NAMES: [&[u8]; 7] =
        [b".bash_history", b".lesshst", b".node_repl_history", b".python_history", b".rnd", b".viminfo", b".wget-hsts"];
    seal.remove_below("root", |path, _| NAMES.contains(&path.file_name()))?;
    seal.empty("root/.cache")
}

fn cloud_init_instance(seal: &mut Seal) -> Result<()> {
    for folder in ["data", "handlers", "instances", "sem"] {
        let doomed = TreePath::literal("var/lib/cloud").append(&TreePath::literal(folder));
        seal.remove_below("var/lib/cloud", |path, _| path.is_below(&doomed))?;
    }
    seal.remove(&[
        "var/lib/cloud/instance",
        "etc/netplan/50-cloud-init.yaml",
        "etc/network/interfaces.d/50-cloud-init",
        "etc/systemd/network/10-cloud-init.network",
        "etc/cloud/cloud-init.disabled",
    ])
}

fn sockets(seal: &mut Seal) -> Result<()> {
    seal.remove_below("", |_, entry| matches!(entry.kind, Kind::Socket))
}

fn times(seal: &mut Seal) -> Result<()> {
    let epoch = seal.epoch;
    for (_, entry) in seal.tree.iter_mut().filter(|(_, entry)| entry.meta.mtime > epoch) {
        entry.meta.mtime = epoch;
    }
    Ok(())
}
