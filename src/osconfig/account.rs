//! The account files of a Tree as tables: passwd(5), group(5), shadow(5), gshadow(5), subuid(5), subgid(5).
//!
//! Owns: [`Accounts`]: reading, looking up, adding, and writing back only what changed, with owner and mode kept.
//! Ranges are those of the image's own login.defs(5), so that the same documents give the same ids.

use std::collections::{BTreeMap, BTreeSet};

use super::editor::{read_text, tree_path};
use crate::error::{Error, Result};
use crate::tree::{Meta, Mtime, Origin, Tree};

/// One colon-separated file.
struct Table {
    path: &'static str,
    mode: u16,
    rows: Vec<Vec<String>>,
    exists: bool,
    changed: bool,
}

impl Table {
    fn load(tree: &Tree, path: &'static str, mode: u16, fields: usize) -> Result<Self> {
        let text = read_text(tree, path)?;
        let mut rows = Vec::new();
        for (number, line) in text.iter().flat_map(|text| text.lines()).enumerate() {
            let row: Vec<String> = line.split(':').map(str::to_owned).collect();
            if row.len() < fields && !line.is_empty() {
                return Err(Error::build(format!(
                    "{path} of the image, line {}: fewer than {fields} fields",
                    number + 1
                )));
            }
            rows.push(row);
        }
        Ok(Table { path, mode, rows, exists: text.is_some(), changed: false })
    }

    fn find(&self, name: &str) -> Option<&Vec<String>> {
        self.rows.iter().find(|row| row.len() > 1 && row[0] == name)
    }

    fn find_mut(&mut self, name: &str) -> Option<&mut Vec<String>> {
        self.rows.iter_mut().find(|row| row.len() > 1 && row[0] == name)
    }

    fn number(&self, name: &str, field: usize) -> Option<u32> {
        self.find(name)?.get(field)?.parse().ok()
    }

    fn numbers(&self) -> impl Iterator<Item = u32> {
        self.rows.iter().filter_map(|row| row.get(2)?.parse().ok())
    }

    fn add(&mut self, row: impl IntoIterator<Item = String>) {
        self.rows.push(row.into_iter().collect());
        self.changed = true;
    }

    fn set(&mut self, name: &str, field: usize, value: &str) {
        if let Some(cell) = self.find_mut(name).and_then(|row| row.get_mut(field)) {
            if cell != value {
                value.clone_into(cell);
                self.changed = true;
            }
        }
    }

    /// Adds a word to a comma-separated field.
    fn add_word(&mut self, name: &str, field: usize, word: &str) {
        let Some(cell) = self.find_mut(name).and_then(|row| row.get_mut(field)) else { return };
        if !cell.split(',').any(|old| old == word) {
            if !cell.is_empty() {
                cell.push(',');
            }
            cell.push_str(word);
            self.changed = true;
        }
    }

    fn store(&self, tree: &mut Tree, gid: u32, epoch: Mtime, origin: &Origin) -> Result<()> {
        if !self.changed {
            return Ok(());
        }
        let text: String = self.rows.iter().map(|row| row.join(":") + "\n").collect();
        let at = tree.resolve(&tree_path(self.path)?)?;
        let old = tree.inode(&at).map(|(_, entry)| entry.meta.clone());
        let meta = old.unwrap_or_else(|| Meta { gid, ..Meta::root(self.mode) });
        tree.write_file(&at, text, Meta { mtime: epoch, ..meta }, origin).map(|_| ())
    }
}

/// Ranges of login.defs(5), with shadow's own defaults.
struct Defs(BTreeMap<String, String>);

impl Defs {
    fn load(tree: &Tree) -> Result<Self> {
        let text = read_text(tree, "/etc/login.defs")?.unwrap_or_default();
        let lines = text.lines().filter_map(|line| line.trim().split_once(char::is_whitespace));
        let values = lines.filter(|(key, _)| !key.starts_with('#'));
        Ok(Defs(values.map(|(key, value)| (key.to_owned(), value.trim().to_owned())).collect()))
    }

    fn number(&self, key: &str, default: u32) -> u32 {
        self.0.get(key).and_then(|text| text.parse().ok()).unwrap_or(default)
    }

    fn octal(&self, key: &str) -> Option<u16> {
        u16::from_str_radix(self.0.get(key)?, 8).ok().filter(|mode| *mode <= 0o7777)
    }
}

/// What a new or existing account is to be.
#[derive(Debug, Clone, Default)]
pub struct Account {
    pub uid: Option<u32>,
    pub comment: Option<String>,
    pub home: Option<String>,
    pub shell: Option<String>,
    pub system: bool,
}

pub struct Accounts {
    passwd: Table,
    group: Table,
    shadow: Table,
    gshadow: Table,
    subuid: Table,
    subgid: Table,
    defs: Defs,
}

impl Accounts {
    pub fn load(tree: &Tree) -> Result<Self> {
        Ok(Accounts {
            passwd: Table::load(tree, "/etc/passwd", 0o644, 7)?,
            group: Table::load(tree, "/etc/group", 0o644, 4)?,
            shadow: Table::load(tree, "/etc/shadow", 0o640, 2)?,
            gshadow: Table::load(tree, "/etc/gshadow", 0o640, 4)?,
            subuid: Table::load(tree, "/etc/subuid", 0o644, 3)?,
            subgid: Table::load(tree, "/etc/subgid", 0o644, 3)?,
            defs: Defs::load(tree)?,
        })
    }

    pub fn store(&self, tree: &mut Tree, epoch: Mtime, origin: &Origin) -> Result<()> {
        let shadow = self.gid("shadow").unwrap_or(0);
        for (table, gid) in [
            (&self.passwd, 0),
            (&self.group, 0),
            (&self.shadow, shadow),
            (&self.gshadow, shadow),
            (&self.subuid, 0),
            (&self.subgid, 0),
        ] {
            table.store(tree, gid, epoch, origin)?;
        }
        Ok(())
    }

    pub fn uid(&self, name: &str) -> Option<u32> {
        self.passwd.number(name, 2)
    }

    pub fn gid(&self, name: &str) -> Option<u32> {
        self.group.number(name, 2)
    }

    /// The primary group of an account.
    pub fn primary_gid(&self, name: &str) -> Option<u32> {
        self.passwd.number(name, 3)
    }

    pub fn home(&self, name: &str) -> Option<&str> {
        self.passwd.find(name)?.get(5).map(String::as_str)
    }

    /// Login names with the password field of shadow(5), in file order.
    pub fn passwords(&self) -> impl Iterator<Item = (&str, &str)> {
        self.shadow.rows.iter().filter(|row| row.len() > 1).map(|row| (row[0].as_str(), row[1].as_str()))
    }

    /// Login name, uid, home and shell of every account, in file order.
    pub fn all(&self) -> impl Iterator<Item = (&str, u32, &str, &str)> {
        self.passwd.rows.iter().filter_map(|row| match row.as_slice() {
            [name, _, uid, _, _, home, shell] => {
                Some((name.as_str(), uid.parse().ok()?, home.as_str(), shell.as_str()))
            }
            _ => None,
        })
    }

    /// The mode of new homes: HOME_MODE, else what UMASK leaves of 0777.
    pub fn home_mode(&self) -> u16 {
        let masked = 0o777 & !self.defs.octal("UMASK").unwrap_or(0o022);
        self.defs.octal("HOME_MODE").unwrap_or(masked)
    }

    /// Makes an account, or brings an existing one in line. Tells whether it is new.
    pub fn put(&mut self, name: &str, account: &Account, day: i64) -> Result<bool> {
        if let Some(uid) = self.uid(name) {
            if account.uid.is_some_and(|wanted| wanted != uid) {
                return Err(Error::documents(format!(
                    "account `{name}` exists with uid {uid}, which cannot be changed"
                ))
                .hint("leave `uid` out, or give that number"));
            }
            for (field, value) in [(4, &account.comment), (5, &account.home), (6, &account.shell)] {
                if let Some(value) = value {
                    self.passwd.set(name, field, value);
                }
            }
            self.shadow_row(name, day);
            return Ok(false);
        }
        let uid = match account.uid {
            Some(uid) => self.free_uid(name, uid)?,
            None => self.next_uid(account.system)?,
        };
        let gid = self.user_group(name, uid, account.system)?;
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        self.passwd.add([
            name.to_owned(),
            "x".into(),
            uid.to_string(),
            gid.to_string(),
            text(&account.comment),
            text(&account.home),
            text(&account.shell),
        ]);
        self.shadow_row(name, day);
        if !account.system {
            self.subordinate(name)?;
        }
        Ok(true)
    }

    /// The password field of shadow(5); the day of the change moves only when the password does.
    pub fn set_password(&mut self, name: &str, password: &str, day: i64) {
        if self.shadow.find(name).is_some_and(|row| row[1] != password) {
            self.shadow.set(name, 1, password);
            self.shadow.set(name, 2, &day.to_string());
        }
    }

    pub fn password(&self, name: &str) -> Option<&str> {
        self.shadow.find(name).map(|row| row[1].as_str())
    }

    /// Sets the day of the last change of every password that is later than `day`.
    pub fn clamp_password_days(&mut self, day: i64) {
        for row in self.shadow.rows.iter_mut().filter(|row| row.len() > 2) {
            if row[2].parse::<i64>().is_ok_and(|changed| changed > day) {
                row[2] = day.to_string();
                self.shadow.changed = true;
            }
        }
    }

    /// Makes a system group if there is none of that name.
    pub fn put_group(&mut self, name: &str) -> Result<()> {
        if self.gid(name).is_none() {
            let gid = self.next_system_id()?;
            self.add_group(name, gid);
        }
        Ok(())
    }

    pub fn add_member(&mut self, group: &str, user: &str) {
        self.group.add_word(group, 3, user);
        self.gshadow.add_word(group, 3, user);
    }

    fn add_group(&mut self, name: &str, gid: u32) {
        self.group.add([name.to_owned(), "x".into(), gid.to_string(), String::new()]);
        if self.gshadow.exists {
            self.gshadow.add([name.to_owned(), "!".into(), String::new(), String::new()]);
        }
    }

    fn shadow_row(&mut self, name: &str, day: i64) {
        if self.shadow.find(name).is_none() {
            let limit = |key, default| self.defs.number(key, default).to_string();
            let (min, max, warn) =
                (limit("PASS_MIN_DAYS", 0), limit("PASS_MAX_DAYS", 99_999), limit("PASS_WARN_AGE", 7));
            let rest = [String::new(), String::new(), String::new()];
            self.shadow.add([name.to_owned(), "*".into(), day.to_string(), min, max, warn].into_iter().chain(rest));
        }
    }

    /// The group named after the user, with the user's number if it is free.
    fn user_group(&mut self, name: &str, uid: u32, system: bool) -> Result<u32> {
        if let Some(gid) = self.gid(name) {
            return Ok(gid);
        }
        let gid = match (self.group.numbers().any(|gid| gid == uid), system) {
            (false, _) => uid,
            (true, true) => self.next_system_id()?,
            (true, false) => lowest_free(self.group.numbers(), self.range("GID"))?,
        };
        self.add_group(name, gid);
        Ok(gid)
    }

    fn range(&self, kind: &str) -> (u32, u32) {
        (self.defs.number(&format!("{kind}_MIN"), 1000), self.defs.number(&format!("{kind}_MAX"), 60_000))
    }

    fn free_uid(&self, name: &str, uid: u32) -> Result<u32> {
        match self.passwd.rows.iter().find(|row| row.get(2).and_then(|text| text.parse().ok()) == Some(uid)) {
            Some(row) => {
                Err(Error::documents(format!("uid {uid} of account `{name}` is taken by account `{}`", row[0])))
            }
            None if uid >= 0xffff_fffe => Err(Error::documents(format!("{uid} is not a user id"))),
            None => Ok(uid),
        }
    }

    fn next_uid(&self, system: bool) -> Result<u32> {
        if system {
            return self.next_system_id();
        }
        lowest_free(self.passwd.numbers().chain(self.group.numbers()), self.range("UID"))
    }

    /// From the top of the system range downwards, free as user and as group.
    fn next_system_id(&self) -> Result<u32> {
        let (min, max) = (self.defs.number("SYS_UID_MIN", 100).max(1), self.defs.number("SYS_UID_MAX", 999));
        let taken: BTreeSet<u32> = self.passwd.numbers().chain(self.group.numbers()).collect();
        (min..=max)
            .rev()
            .find(|id| !taken.contains(id))
            .ok_or_else(|| Error::build("no system id is free in the image"))
    }

    /// A range of subordinate ids where the image keeps such files (rootless containers).
    fn subordinate(&mut self, name: &str) -> Result<()> {
        for (table, kind) in [(&mut self.subuid, "SUB_UID"), (&mut self.subgid, "SUB_GID")] {
            let count = self.defs.number(&format!("{kind}_COUNT"), 65_536);
            if !table.exists || table.find(name).is_some() || count == 0 {
                continue;
            }
            let ends = table
                .rows
                .iter()
                .filter_map(|row| row.get(1)?.parse::<u64>().ok()?.checked_add(row.get(2)?.parse::<u64>().ok()?));
            let start = ends.max().unwrap_or(0).max(u64::from(self.defs.number(&format!("{kind}_MIN"), 100_000)));
            if start + u64::from(count) > u64::from(self.defs.number(&format!("{kind}_MAX"), 600_100_000)) + 1 {
                return Err(Error::build(format!("no subordinate ids are left for account `{name}`")));
            }
            table.add([name.to_owned(), start.to_string(), count.to_string()]);
        }
        Ok(())
    }
}

/// useradd(8) counts on from the highest; the lowest free one does not move when somebody declares a high number.
fn lowest_free(used: impl Iterator<Item = u32>, (min, max): (u32, u32)) -> Result<u32> {
    let taken: BTreeSet<u32> = used.collect();
    (min..=max).find(|id| !taken.contains(id)).ok_or_else(|| Error::build("no user or group id is free in the image"))
}

/// The id of a name, or of a number written out.
pub fn lookup(text: &str, by_name: impl Fn(&str) -> Option<u32>) -> Option<u32> {
    by_name(text).or_else(|| text.parse().ok().filter(|id| *id < 0xffff_fffe))
}
