//! `users`: accounts, by login name (upstream `user_management`).

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::distribution::Empty;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct User {
    /// The next free one when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Absolute path of the login shell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shell: Option<String>,
    /// Absolute path; below `/home` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub home: Option<String>,
    /// The name of the person (the GECOS field).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// A crypt(5) hash (`$6$...`, `$y$...`). Clear text is refused. None: no password login.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// Lock the password (`!` in shadow(5)).
    #[serde(rename = "password_lock", skip_serializing_if = "Option::is_none")]
    pub password_lock: Option<bool>,
    /// A system account: uid below 1000, no home.
    pub system: bool,
    /// Supplementary groups, made when missing.
    pub groups: BTreeMap<String, Empty>,
    /// By a name of your choice -> one line of authorized_keys(5).
    pub authorized_keys: BTreeMap<String, String>,
    /// A sudoers(5) rule without the user name, `ALL=(ALL) NOPASSWD:ALL`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sudo: Option<String>,
}
