//! `files`: files, folders and links, by absolute path (upstream `files`, `directories`, `file_permissions`).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::scalar::Mode;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct FileEntry {
    pub state: FileState,
    /// The text of a file.
    #[serde(rename = "file_content", skip_serializing_if = "Option::is_none")]
    pub file_content: Option<String>,
    /// Base64 of the bytes of a file, for what is not text.
    #[serde(rename = "file_content_base64", skip_serializing_if = "Option::is_none")]
    pub file_content_base64: Option<String>,
    /// Target of a `link`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Octal; 0644 for new files, 0755 for new folders, unchanged for existing ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub permissions: Option<Mode>,
    /// User name or number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Group name or number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FileState {
    /// A file; without `file_content` it must exist and only its owner and mode are set.
    #[default]
    File,
    Directory,
    Link,
    Absent,
}
