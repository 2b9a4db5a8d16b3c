//! `osconfig-vars.yaml`: settings inside the image.
//!
//! Owns: the meaning of each variable of upstream's role `osconfig`. Lists with names become the maps that a
//! NodeProfile has.

use super::overlay::{Overlay, key as key_at, mapping_of};
use super::variables::{Table, ignored, known_keys, later, list, mapping, required, sets, text};
use crate::document::{Diagnostic, Key, Node};
use crate::error::{Error, Result};

pub(super) const TABLE: Table = &[
    sets("kernel", "`kernel.modules`, replaced", kernel),
    sets("banners", "`files./etc/issue` and `files./etc/update-motd.d/00-motd`", banners),
    sets("kubelet", "`kubernetes.kubelet.extra_systemd_args`, replaced", kubelet),
    sets("grub", "`kernel.grub` and `kernel.commandLine`, replaced; all of it must be given", grub),
    sets("grub_cmdline_linux_default_append", "added to the end of `kernel.commandLine`", command_line_append),
    sets("limits", "`limits`, replaced", limits),
    sets("sysctl", "`kernel.sysctl`, replaced", sysctl),
    sets("directories", "entries of `files` with `state: directory`", directories),
    sets("files", "entries of `files`", files),
    sets("systemd", "entries of `systemd`", systemd),
    // After `files`: it changes what they made.
    sets("file_permissions", "owner and mode in entries of `files`", file_permissions),
    sets("user_management", "entries of `users`", user_management),
    later("user_scripts"),
    later("fetch_from_url"),
    later("fetch_from_url_append"),
    later("kdump_tools"),
    ignored("rootfs_root"),
    ignored("default_run_context"),
    ignored("qcow_run_context"),
    ignored("user_scripts_dir_default"),
    ignored("user_scripts_dir_qcow"),
];

/// `[{name, value}]` as a map.
fn named_values(value: &Node, what: &str) -> Result<Node> {
    let mut pairs = Vec::new();
    for item in list(value, what)? {
        known_keys(item, what, &["name", "value"])?;
        let name = required(item, "name", what)?;
        let setting = required(item, "value", what)?;
        text(setting, "a value")?;
        pairs.push((key_at(text(name, "a name")?, &name.origin.at), setting.clone()));
    }
    Ok(mapping_of(pairs, &value.origin.at))
}

fn kernel(overlay: &mut Overlay, key: &Key, value: &Node) -> Result<()> {
    known_keys(value, "`kernel`", &["modules"])?;
    let modules = required(value, "modules", "`kernel`")?;
    known_keys(modules, "`kernel.modules`", &["load", "blacklist"])?;
    let mut pairs = Vec::new();
    for (list_name, field) in [("load", "args"), ("blacklist", "")] {
        let Some(entries) = modules.get(list_name) else { continue };
        for entry in list(entries, "modules")? {
            known_keys(entry, "a module", &["name", "args"])?;
            let name = required(entry, "name", "a module")?;
            let at = &name.origin.at;
            let module = match (list_name, entry.get(field)) {
                ("blacklist", _) => {
                    mapping_of([(key_at("blacklist", at), Node::plain("true", name.origin.clone()))], at)
                }
                (_, Some(args)) => mapping_of([(key_at("options", at), named_values(args, "module options")?)], at),
                _ => mapping_of([], at),
            };
            pairs.push((key_at(text(name, "a module name")?, at), module));
        }
    }
    overlay.set(&["kernel", "modules"], mapping_of(pairs, &modules.origin.at), key);
    Ok(())
}

fn banners(overlay: &mut Overlay, key: &Key, value: &Node) -> Result<()> {
    known_keys(value, "`banners`", &["login", "motd"])?;
    for (banner, path, mode) in [("login", "/etc/issue", "0644"), ("motd", "/etc/update-motd.d/00-motd", "0755")] {
        let Some(content) = value.get(banner) else { continue };
        text(content, "the text of a banner")?;
        let at = &content.origin.at;
        let own = |text: &str| Node::string(text, content.origin.clone());
        let pairs = [
            (key_at("file_content", at), content.clone()),
            (key_at("permissions", at), own(mode)),
            (key_at("owner", at), own("root")),
            (key_at("group", at), own("root")),
        ];
        overlay.set(&["files", path], mapping_of(pairs, at), key);
    }
    Ok(())
}

fn kubelet(overlay: &mut Overlay, key: &Key, value: &Node) -> Result<()> {
    known_keys(value, "`kubelet`", &["extra_systemd_args"])?;
    if let Some(arguments) = value.get("extra_systemd_args") {
        let arguments = named_values(arguments, "kubelet arguments")?;
        overlay.set(&["kubernetes", "kubelet", "extra_systemd_args"], arguments, key);
    }
    Ok(())
}

/// Replaces all of it, so all of it must be there.
fn grub(overlay: &mut Overlay, key: &Key, value: &Node) -> Result<()> {
    known_keys(value, "`grub`", &["GRUB_TIMEOUT", "GRUB_CMDLINE_LINUX_DEFAULT", "GRUB_SERIAL_COMMAND"])?;
    let part = |name: &str| {
        value.get(name).ok_or_else(|| {
            let diagnostic = Diagnostic::at(&key.at, format!("`grub` without `{name}`"));
            Error::from(diagnostic.hint(
                "a variable replaces its setting as a whole: give all of `grub`, or use \
                 `grub_cmdline_linux_default_append` to add kernel arguments",
            ))
        })
    };
    let timeout = part("GRUB_TIMEOUT")?;
    text(timeout, "seconds")?;
    let command_line = command_line(part("GRUB_CMDLINE_LINUX_DEFAULT")?)?;
    let serial = named_values(part("GRUB_SERIAL_COMMAND")?, "arguments of `serial`")?;
    overlay.set(&["kernel", "grub", "GRUB_TIMEOUT"], timeout.clone(), key);
    overlay.set(&["kernel", "grub", "GRUB_SERIAL_COMMAND"], serial, key);
    overlay.set(&["kernel", "commandLine"], command_line, key);
    Ok(())
}

/// Kernel arguments, whose shape is ours.
fn command_line(value: &Node) -> Result<Node> {
    for item in list(value, "kernel arguments")? {
        known_keys(item, "a kernel argument", &["name", "value"])?;
        text(required(item, "name", "a kernel argument")?, "the name of a kernel argument")?;
    }
    Ok(value.clone())
}

fn command_line_append(overlay: &mut Overlay, key: &Key, value: &Node) -> Result<()> {
    let value = command_line(value)?;
    overlay.append(&["kernel", "commandLine"], list(&value, "kernel arguments")?, key);
    Ok(())
}

fn limits(overlay: &mut Overlay, key: &Key, value: &Node) -> Result<()> {
    let mut pairs = Vec::new();
    for item in list(value, "limits")? {
        let (name, rest) = split_name(item, "a limit", &["name", "domain", "type", "item", "value"])?;
        pairs.push((name, rest));
    }
    overlay.set(&["limits"], mapping_of(pairs, &value.origin.at), key);
    Ok(())
}

fn sysctl(overlay: &mut Overlay, key: &Key, value: &Node) -> Result<()> {
    overlay.set(&["kernel", "sysctl"], named_values(value, "a sysctl")?, key);
    Ok(())
}

fn directories(overlay: &mut Overlay, key: &Key, value: &Node) -> Result<()> {
    for item in list(value, "directories")? {
        let known = ["name", "permissions", "owner", "group", "run_contexts"];
        let (name, mut rest) = split_name(item, "a directory", &known)?;
        if let Some(mapping) = rest.as_mapping_mut() {
            mapping.set(key_at("state", &name.at), Node::string("directory", item.origin.clone()));
        }
        overlay.set(&["files", &name.text], rest, key);
    }
    Ok(())
}

fn files(overlay: &mut Overlay, key: &Key, value: &Node) -> Result<()> {
    for item in list(value, "files")? {
        let known = ["name", "file_content", "permissions", "owner", "group", "run_contexts"];
        let (name, rest) = split_name(item, "a file", &known)?;
        overlay.set(&["files", &name.text], rest, key);
    }
    Ok(())
}

fn systemd(overlay: &mut Overlay, key: &Key, value: &Node) -> Result<()> {
    for item in list(value, "systemd units")? {
        let known = ["name", "file_content", "enabled", "force", "run_contexts"];
        let (name, mut rest) = split_name(item, "a systemd unit", &known)?;
        if let Some(mapping) = rest.as_mapping_mut() {
            // Links are made as they should be, whatever was there.
            mapping.remove("force");
            yes_and_no(mapping.get_mut("enabled"));
        }
        overlay.set(&["systemd", &name.text], rest, key);
    }
    Ok(())
}

fn file_permissions(overlay: &mut Overlay, key: &Key, value: &Node) -> Result<()> {
    for item in list(value, "file permissions")? {
        let known = ["name", "permissions", "owner", "group", "run_contexts"];
        let (name, rest) = split_name(item, "an entry of `file_permissions`", &known)?;
        for entry in mapping(&rest, "an entry of `file_permissions`")? {
            overlay.set(&["files", &name.text, &entry.key.text], entry.value.clone(), key);
        }
    }
    Ok(())
}

fn user_management(overlay: &mut Overlay, key: &Key, value: &Node) -> Result<()> {
    for item in list(value, "users")? {
        let known = ["name", "shell", "password", "password_lock", "run_contexts"];
        let (name, mut rest) = split_name(item, "a user", &known)?;
        if let Some(mapping) = rest.as_mapping_mut() {
            // Upstream's way to give none.
            if mapping.get("password").is_some_and(|password| password.text().is_none_or(str::is_empty)) {
                mapping.remove("password");
            }
            yes_and_no(mapping.get_mut("password_lock"));
        }
        for entry in mapping(&rest, "a user")? {
            overlay.set(&["users", &name.text, &entry.key.text], entry.value.clone(), key);
        }
        if overlay.get(&["users", &name.text]).is_none() {
            overlay.set(&["users", &name.text], rest, key);
        }
    }
    Ok(())
}

/// Ansible reads YAML 1.1, where plain `yes` and `no` are booleans.
fn yes_and_no(node: Option<&mut Node>) {
    let Some(node) = node else { return };
    let value = match node.text() {
        Some("yes" | "Yes" | "on") => "true",
        Some("no" | "No" | "off") => "false",
        _ => return,
    };
    *node = Node::plain(value, node.origin.clone());
}

/// The name of a list entry, and the entry without name and contexts.
fn split_name(item: &Node, what: &str, known: &[&str]) -> Result<(Key, Node)> {
    known_keys(item, what, known)?;
    let name = required(item, "name", what)?;
    let key = key_at(text(name, "a name")?, &name.origin.at);
    if let Some(contexts) = item.get("run_contexts") {
        check_contexts(contexts)?;
    }
    let mut rest = item.clone();
    if let Some(mapping) = rest.as_mapping_mut() {
        mapping.remove("name");
        mapping.remove("run_contexts");
    }
    Ok((key, rest))
}

/// Both of upstream's contexts are part of a disk image.
fn check_contexts(contexts: &Node) -> Result<()> {
    for context in list(contexts, "contexts")? {
        let known = ["common", "qcow", "{{ default_run_context }}", "{{ qcow_run_context }}"];
        let name = text(context, "a context")?;
        if !known.contains(&name.trim()) {
            return Err(Diagnostic::on(context, format!("unknown context `{name}`"))
                .hint("known contexts: `common`, `qcow`")
                .into());
        }
    }
    Ok(())
}
