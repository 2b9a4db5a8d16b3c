//! The official program that overlays are compared with: `KUBECTL`, where Google's packages put it, or `kubectl` on PATH.

use std::path::PathBuf;
use std::process::Command;

/// An official kubectl new enough to agree with kustomize 5.4 or later.
pub fn kubectl() -> Option<PathBuf> {
    let mut candidates: Vec<PathBuf> = std::env::var_os("KUBECTL").map(PathBuf::from).into_iter().collect();
    let installed = std::fs::read_dir("/usr/lib/google-cloud-sdk/bin").into_iter().flatten().flatten();
    let mut installed: Vec<PathBuf> =
        installed.map(|entry| entry.path()).filter(|path| path.to_string_lossy().contains("/kubectl.1.")).collect();
    installed.sort();
    candidates.extend(installed.into_iter().rev());
    candidates.push("kubectl".into());
    candidates.into_iter().find(|program| {
        let output = Command::new(program).args(["version", "--client", "-o", "json"]).output();
        let version = output.ok().and_then(|o| serde_json::from_slice::<serde_json::Value>(&o.stdout).ok());
        let minor = version.as_ref().and_then(|v| v.pointer("/clientVersion/minor")).and_then(|m| m.as_str());
        minor.and_then(|minor| minor.trim_end_matches('+').parse::<u32>().ok()).is_some_and(|minor| minor >= 31)
    })
}
