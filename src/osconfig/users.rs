//! `users`: accounts, groups, passwords, ssh keys and sudo rules.

use super::account::{Account, Accounts};
use super::editor::{one_line, tree_path};
use super::{Editor, Setting};
use crate::api::params::User;
use crate::error::{Error, Result};
use crate::tree::{Entry, Kind, Meta, Origin, TreePath};

const SECONDS_A_DAY: i64 = 86_400;
/// crypt(5) methods that are still sound: yescrypt, gost-yescrypt, scrypt, bcrypt, SHA-512, SHA-256.
const METHODS: [&str; 8] = ["$y$", "$gy$", "$7$", "$2b$", "$2a$", "$2y$", "$6$", "$5$"];
/// First words of a public key line (sshd(8), AUTHORIZED_KEYS FILE FORMAT).
const KEY_TYPES: [&str; 7] = [
    "ssh-ed25519",
    "ssh-rsa",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
];

pub const SETTING: Setting = Setting {
    name: "users",
    writes: &[
        "/etc/passwd",
        "/etc/group",
        "/etc/shadow",
        "/etc/gshadow",
        "/etc/subuid",
        "/etc/subgid",
        "<home>/.ssh/authorized_keys",
        "/etc/sudoers.d/90-imagebuilder-<name>",
    ],
    initramfs: false,
    apply,
};

pub fn sudoers_file(name: &str) -> String {
    // sudo skips files with a dot or a final tilde in their name (sudoers(5)).
    format!("/etc/sudoers.d/90-imagebuilder-{}", name.replace('.', "_"))
}

fn apply(editor: &mut Editor) -> Result<()> {
    let users = &editor.params.users;
    let day = editor.facts.epoch.seconds.div_euclid(SECONDS_A_DAY).max(0);
    let mut accounts = Accounts::load(editor.tree)?;
    lock_root(&mut accounts, users.get("root"), day);
    // Declared numbers first, so that counted ones go around them; both in order of the names.
    let (fixed, counted): (Vec<_>, Vec<_>) = users.iter().partition(|(_, user)| user.uid.is_some());
    let mut new = Vec::new();
    for (name, user) in fixed.into_iter().chain(counted) {
        let mut put = || {
            let is_new = accounts.put(user_name(name)?, &account(editor, name, user)?, day)?;
            set_password(&mut accounts, name, user, day)?;
            Ok(is_new)
        };
        if put().map_err(|error: Error| error.about(&["users", name]))? {
            new.push(name.as_str());
        }
    }
    for (name, user) in users {
        for group in user.groups.keys() {
            let group_name = user_name(group).map_err(|error| error.about(&["users", name, "groups", group]))?;
            accounts.put_group(group_name)?;
            accounts.add_member(group, name);
        }
    }
    let origin = editor.origin(&["users"]);
    accounts.store(editor.tree, editor.facts.epoch, &origin)?;
    for (name, user) in users {
        let origin = editor.origin(&["users", name]);
        let mut settle = || {
            if new.contains(&name.as_str()) && !user.system {
                make_home(editor, &accounts, name, &origin)?;
            }
            authorized_keys(editor, &accounts, name, user)?;
            sudo(editor, name, user)
        };
        settle().map_err(|error| error.about(&["users", name]))?;
    }
    Ok(())
}

/// Nobody logs in as root by password unless a document gives the hash.
fn lock_root(accounts: &mut Accounts, declared: Option<&User>, day: i64) {
    let open = |password: &str| password.is_empty() || !password.starts_with(['*', '!']);
    if declared.is_none_or(|user| user.password.is_none()) && accounts.password("root").is_some_and(open) {
        accounts.set_password("root", "*", day);
    }
}

fn account(editor: &Editor, name: &str, user: &User) -> Result<Account> {
    for (what, text) in [("comment", &user.comment), ("home", &user.home), ("shell", &user.shell)] {
        let text = one_line(text.as_deref().unwrap_or_default(), &format!("`{what}` of user `{name}`"))?;
        if text.contains([':', '=']) {
            return Err(Error::documents(format!("`{what}` of user `{name}` holds a colon or an equals sign")));
        }
    }
    for (what, path) in [("shell", &user.shell), ("home", &user.home)] {
        if path.as_ref().is_some_and(|path| !path.starts_with('/') || TreePath::new(path).is_none()) {
            return Err(Error::documents(format!("`{what}` of user `{name}` is not an absolute path")));
        }
    }
    if let Some(shell) = user.shell.as_deref().filter(|shell| !editor.exists(shell)) {
        return Err(Error::documents(format!("`shell` of user `{name}`: the image has no `{shell}`"))
            .hint("add the package that brings it, or use `/bin/bash` or `/usr/sbin/nologin`"));
    }
    if Accounts::load(editor.tree)?.uid(name).is_some() {
        let same = |text: &Option<String>| text.clone();
        return Ok(Account {
            uid: user.uid,
            comment: same(&user.comment),
            home: same(&user.home),
            shell: same(&user.shell),
            system: user.system,
        });
    }
    let shell = match (user.system, editor.exists("/bin/bash")) {
        (true, _) => "/usr/sbin/nologin",
        (false, true) => "/bin/bash",
        (false, false) => "/bin/sh",
    };
    let home = if user.system { "/nonexistent".to_owned() } else { format!("/home/{name}") };
    Ok(Account {
        uid: user.uid,
        comment: user.comment.clone(),
        home: Some(user.home.clone().unwrap_or(home)),
        shell: Some(user.shell.clone().unwrap_or_else(|| shell.to_owned())),
        system: user.system,
    })
}

fn set_password(accounts: &mut Accounts, name: &str, user: &User, day: i64) -> Result<()> {
    let hash = user.password.as_deref().map(|hash| check_hash(name, hash)).transpose()?;
    let field = match (hash, user.password_lock) {
        (Some(hash), Some(true)) => format!("!{hash}"),
        (Some(hash), _) => hash.to_owned(),
        (None, Some(true)) => "!".to_owned(),
        // No password login, yet no lock either: ssh keys work whatever sshd makes of locks.
        (None, _) if accounts.password(name) == Some("!") || accounts.password(name).is_none() => "*".to_owned(),
        (None, _) => return Ok(()),
    };
    accounts.set_password(name, &field, day);
    Ok(())
}

/// Never shows the text: it may be a password.
fn check_hash<'h>(name: &str, hash: &'h str) -> Result<&'h str> {
    let fine = |c: char| c.is_ascii_graphic() && !":;*!\\".contains(c);
    let known = METHODS.iter().any(|method| hash.starts_with(method));
    if known && hash.len() >= 20 && hash.len() <= 384 && hash.matches('$').count() >= 3 && hash.chars().all(fine) {
        return Ok(hash);
    }
    Err(Error::documents(format!("`password` of user `{name}` is not a crypt(5) hash of a sound method"))
        .hint("make one with `openssl passwd -6` or `mkpasswd`; a password in clear text is refused")
        .hint("leave `password` out for an account without password login"))
}

fn make_home(editor: &mut Editor, accounts: &Accounts, name: &str, origin: &Origin) -> Result<()> {
    let (Some(uid), Some(gid), Some(home)) = (accounts.uid(name), accounts.primary_gid(name), accounts.home(name))
    else {
        return Ok(());
    };
    let home = editor.tree.make_directories(&tree_path(home)?, editor.facts.epoch, origin)?;
    let own = |meta: &mut Meta| (meta.uid, meta.gid) = (uid, gid);
    let mode = accounts.home_mode();
    editor.set_meta(
        &home,
        |meta| {
            own(meta);
            meta.mode = mode
        },
        origin,
    )?;
    let skel = editor.tree.resolve(&TreePath::literal("etc/skel"))?;
    let copied: Vec<(TreePath, Entry)> = editor
        .tree
        .below(&skel)
        .filter_map(|(path, entry)| {
            let mut entry = Entry { origin: origin.clone(), ..entry.clone() };
            if let Kind::HardLink(target) = &entry.kind {
                entry.kind = editor.tree.get(target)?.kind.clone();
            }
            own(&mut entry.meta);
            Some((home.append(&path.strip_prefix(&skel)?), entry))
        })
        .collect();
    for (path, entry) in copied {
        if !editor.tree.contains(&path) {
            editor.tree.insert_raw(path, entry);
        }
    }
    Ok(())
}

fn authorized_keys(editor: &mut Editor, accounts: &Accounts, name: &str, user: &User) -> Result<()> {
    if user.authorized_keys.is_empty() {
        return Ok(());
    }
    let mut text = String::new();
    for (label, key) in &user.authorized_keys {
        let key = one_line(key.trim(), &format!("ssh key `{label}` of user `{name}`"))?;
        let words: Vec<&str> = key.split_whitespace().collect();
        if !words.windows(2).any(|pair| KEY_TYPES.contains(&pair[0]) && pair[1].starts_with("AAAA")) {
            return Err(Error::documents(format!("ssh key `{label}` of user `{name}` is not a public key"))
                .hint("expected one line such as `ssh-ed25519 AAAA... comment`"));
        }
        text += &format!("{key}\n");
    }
    let origin = editor.origin(&["users", name, "authorizedKeys"]);
    let (Some(uid), Some(gid), Some(home)) = (accounts.uid(name), accounts.primary_gid(name), accounts.home(name))
    else {
        return Ok(());
    };
    if !editor.exists(home) {
        return Err(Error::documents(format!("user `{name}` has ssh keys but no home: `{home}` does not exist"))
            .hint("give the account a `home` that exists, or do not make it a `system` account"));
    }
    let folder = editor.tree.make_directories(&tree_path(&format!("{home}/.ssh"))?, editor.facts.epoch, &origin)?;
    editor.set_meta(&folder, |meta| (meta.uid, meta.gid, meta.mode) = (uid, gid, 0o700), &origin)?;
    let meta = editor.meta(0o600, uid, gid);
    editor.write_as(&format!("{home}/.ssh/authorized_keys"), text, meta, &origin)
}

fn sudo(editor: &mut Editor, name: &str, user: &User) -> Result<()> {
    let Some(rule) = &user.sudo else { return Ok(()) };
    let rule = one_line(rule, &format!("`sudo` of user `{name}`"))?.trim();
    if rule.is_empty() || !rule.contains('=') || rule.ends_with('\\') {
        return Err(Error::documents(format!("`sudo` of user `{name}` is not a rule"))
            .hint("expected a rule without the user name, such as `ALL=(ALL) NOPASSWD:ALL`"));
    }
    if !editor.exists("/etc/sudoers") {
        return Err(super::editor::needs_package(&format!("user `{name}` has a sudo rule"), "sudo"));
    }
    let origin = editor.origin(&["users", name, "sudo"]);
    editor.write(&sudoers_file(name), format!("{name} {rule}\n"), 0o440, &origin)
}

/// What useradd(8) on Debian takes without `--badname`, and no more than 32 bytes.
fn user_name(name: &str) -> Result<&str> {
    let fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-.".contains(c);
    let start = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_');
    if start && name.len() <= 32 && name.chars().all(fine) {
        return Ok(name);
    }
    Err(Error::documents(format!("`{}` is not the name of an account or a group", name.escape_debug()))
        .hint("small letters, digits, `_`, `-` and `.`, starting with a letter, 32 at most"))
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;

    #[test]
    fn accounts_get_their_lines() {
        let mut tree = fixture::rootfs();
        fixture::apply(&mut tree, &fixture::params()).unwrap();
        let has = |file: &str, line: &str| {
            let text = fixture::text(&tree, file).unwrap();
            assert!(text.lines().any(|one| one == line), "{line} not in\n{text}");
        };
        has("/etc/passwd", "ops:x:1000:1000:Operations:/home/ops:/bin/bash");
        has("/etc/passwd", "zed:x:1500:1500::/home/zed:/bin/bash");
        has("/etc/shadow", &format!("ops:{}:19675:0:99999:7:::", fixture::HASH));
        has("/etc/shadow", "zed:!:19675:0:99999:7:::");
        has("/etc/shadow", "root:*:19000:0:99999:7:::");
        has("/etc/group", "ops:x:1000:");
        has("/etc/group", "sudo:x:27:ops");
        has("/etc/group", "docker:x:999:ops");
        has("/etc/gshadow", "docker:!::ops");
        has("/etc/gshadow", "ops:!::");
        has("/etc/subuid", "ops:231072:65536");
        has("/etc/sudoers.d/90-imagebuilder-ops", "ops ALL=(ALL) NOPASSWD:ALL");
    }

    #[test]
    fn homes_belong_to_their_users() {
        let mut tree = fixture::rootfs();
        fixture::apply(&mut tree, &fixture::params()).unwrap();
        let meta = |path| tree.get(&TreePath::literal(path)).map(|entry| (entry.meta.mode, entry.meta.uid)).unwrap();
        assert_eq!(meta("home"), (0o755, 0));
        assert_eq!(meta("home/ops"), (0o755, 1000));
        assert_eq!(meta("home/ops/.bashrc"), (0o644, 1000));
        assert_eq!(meta("home/ops/.ssh"), (0o700, 1000));
        assert_eq!(meta("home/ops/.ssh/authorized_keys"), (0o600, 1000));
        assert_eq!(meta("etc/shadow"), (0o640, 0));
        assert_eq!(meta("etc/sudoers.d/90-imagebuilder-ops"), (0o440, 0));
        let keys = fixture::text(&tree, "/home/ops/.ssh/authorized_keys").unwrap();
        assert_eq!(keys, "ssh-ed25519 AAAAC3Nz a\nfrom=\"10.*\" ssh-rsa AAAAB3Nz b\n");
    }

    #[test]
    fn clear_text_is_refused_and_not_shown() {
        let (mut tree, mut params) = (fixture::rootfs(), fixture::params());
        for bad in ["password", "$1$abcdefgh$0123456789abcdefghijkl", "$6$salt:x$aaaaaaaaaaaaaaaaaaaaaa", "", "!"] {
            params.users.get_mut("ops").unwrap().password = Some(bad.into());
            let error = fixture::apply(&mut tree, &params).unwrap_err();
            assert!(error.to_string().contains("`password` of user `ops` is not a crypt(5) hash"));
            assert!(bad.len() < 9 || !error.to_string().contains(bad));
        }
    }

    #[test]
    fn mistakes_are_named() {
        type Edit = fn(&mut User);
        let cases: [(Edit, &str); 7] = [
            (|user| user.shell = Some("/bin/fish".into()), "no `/bin/fish`"),
            (|user| user.comment = Some("a:b".into()), "colon"),
            (|user| user.home = Some("../x".into()), "absolute path"),
            (|user| user.sudo = Some("ALL".into()), "not a rule"),
            (|user| user.uid = Some(1500), "taken by account"),
            (
                |user| {
                    user.authorized_keys.insert("x".into(), "nonsense".into());
                },
                "not a public key",
            ),
            (
                |user| {
                    user.groups.insert("A B".into(), Default::default());
                },
                "not the name",
            ),
        ];
        for (edit, expected) in cases {
            let mut params = fixture::params();
            edit(params.users.get_mut("ops").unwrap());
            let error = fixture::apply(&mut fixture::rootfs(), &params).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn an_open_root_is_closed() {
        let mut tree = fixture::rootfs();
        fixture::file(&mut tree, "/etc/shadow", "root::19000:0:99999:7:::\n");
        fixture::apply(&mut tree, &fixture::params()).unwrap();
        assert!(fixture::text(&tree, "/etc/shadow").unwrap().starts_with("root:*:19675:"));
    }
}
