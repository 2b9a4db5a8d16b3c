//! The releases there are documents for: one row each, named as people, documents and make variables name them.
//!
//! Owns: the closed list [`RELEASES`] and finding a row. A new release is a folder under `functions/images` and a row.

/// One release of a distribution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Release {
    /// `distribution.name`.
    pub distribution: &'static str,
    /// `distribution.release`, the code name.
    pub name: &'static str,
    /// As its makers count.
    pub version: &'static str,
    /// Value of the make variable `DISTRO`.
    pub distro: &'static str,
    /// Folder under `functions/images`.
    pub function: &'static str,
}

const fn release(
    distribution: &'static str,
    name: &'static str,
    version: &'static str,
    distro: &'static str,
    function: &'static str,
) -> Release {
    Release { distribution, name, version, distro, function }
}

/// The first one is the default.
pub const RELEASES: [Release; 5] = [
    release("debian", "bookworm", "12", "debian_bookworm", "debian-bookworm"),
    release("debian", "trixie", "13", "debian_trixie", "debian-trixie"),
    release("ubuntu", "focal", "20.04", "ubuntu_focal", "ubuntu-focal"),
    release("ubuntu", "jammy", "22.04", "ubuntu_jammy", "ubuntu-jammy"),
    release("ubuntu", "noble", "24.04", "ubuntu_noble", "ubuntu-noble"),
];

impl Release {
    pub fn find(distribution: &str, name: &str) -> Option<&'static Release> {
        RELEASES.iter().find(|release| release.distribution == distribution && release.name == name)
    }

    pub fn by_distro(distro: &str) -> Option<&'static Release> {
        RELEASES.iter().find(|release| release.distro == distro)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_release_has_its_function() {
        let functions = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("functions/images");
        for release in &RELEASES {
            assert!(functions.join(release.function).join("kustomization.yaml").is_file(), "{}", release.function);
            assert_eq!(Release::find(release.distribution, release.name), Some(release));
            assert_eq!(Release::by_distro(release.distro), Some(release));
        }
        assert_eq!(Release::find("debian", "noble"), None);
    }
}
