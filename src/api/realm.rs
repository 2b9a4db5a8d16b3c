//! Where what a field says takes effect: in the image that many nodes share, in what one node is told when it first
//! boots, on the running host, or in the build only.
//!
//! Owns: the table [`REALMS`], [`Realm`], [`of_field`] and [`of_params`]. Every field of every kind has a realm: its own,
//! else that of what it lies in.

/// Where a value belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Realm {
    /// It decides how the image is made, and is not in it.
    Build,
    /// The same on every node that runs the image.
    Image,
    /// Of one node, handed over when it is provisioned (user data, meta-data, network data).
    CloudInit,
    /// Of one node or cluster, set on the running host by whoever operates it.
    Host,
}

impl Realm {
    pub fn name(self) -> &'static str {
        match self {
            Realm::Build => "build",
            Realm::Image => "image",
            Realm::CloudInit => "cloud-init",
            Realm::Host => "host",
        }
    }

    /// In a sentence: "it belongs ...".
    pub fn place(self) -> &'static str {
        match self {
            Realm::Build => "to the build, not into the image",
            Realm::Image => "into the image",
            Realm::CloudInit => "into the cloud-init data of each node",
            Realm::Host => "to the running host",
        }
    }
}

/// Paths below the areas (`*` is any key), the longest that fits counts; everything else belongs into the image.
pub const REALMS: &[(&[&str], Realm)] = &[
    (&["distribution", "snapshot"], Realm::Build),
    (&["distribution", "repositories", "*", "source"], Realm::Build),
    (&["distribution", "repositories", "*", "snapshot"], Realm::Build),
    (&["distribution", "repositories", "*", "snapshotSource"], Realm::Build),
    (&["distribution", "repositories", "*", "register_repo_with_rootfs"], Realm::Build),
    (&["kubernetes", "kubelet", "extra_systemd_args", "bootstrap-kubeconfig"], Realm::Host),
    (&["kubernetes", "kubelet", "extra_systemd_args", "cluster-dns"], Realm::Host),
    (&["kubernetes", "kubelet", "extra_systemd_args", "hostname-override"], Realm::Host),
    (&["kubernetes", "kubelet", "extra_systemd_args", "node-ip"], Realm::Host),
    (&["kubernetes", "kubelet", "extra_systemd_args", "provider-id"], Realm::Host),
    (&["networking", "hostname"], Realm::CloudInit),
    (&["networking", "hosts"], Realm::CloudInit),
    (&["software", "packages", "*", "layer"], Realm::Build),
    (&["software", "packages", "*", "state"], Realm::Build),
    (&["storage", "headroom"], Realm::Build),
    (&["storage", "partitions", "*", "headroom"], Realm::Build),
    (&["users", "*", "authorizedKeys"], Realm::CloudInit),
];

/// Words in the names of fields, wherever they are, that hand something to cloud-init.
const CLOUD_INIT: [&str; 3] = ["userdata", "networkconfig", "networkdata"];

/// The realm of a field of a kind, by its path from the root. Keys of maps may be left out, as in `explain`.
pub fn of_field(kind: &str, path: &[impl AsRef<str>]) -> Realm {
    let path: Vec<&str> = path.iter().map(AsRef::as_ref).collect();
    match (kind, &path[..]) {
        ("AirshipImage", ["spec", "params", rest @ ..]) | ("NodeProfile", ["spec", rest @ ..]) => of_params(rest),
        _ if path.iter().any(|part| CLOUD_INIT.iter().any(|word| part.to_lowercase().contains(word))) => {
            Realm::CloudInit
        }
        _ => Realm::Build,
    }
}

/// The same for a path below the areas (`["networking", "hostname"]`).
pub fn of_params(path: &[impl AsRef<str>]) -> Realm {
    let path: Vec<&str> = path.iter().map(AsRef::as_ref).collect();
    let fitting = REALMS.iter().filter(|(pattern, _)| covers(pattern, &path));
    fitting.max_by_key(|(pattern, _)| pattern.len()).map_or(Realm::Image, |(_, realm)| *realm)
}

/// Whether a path leads to what a pattern names, or below it.
fn covers(pattern: &[&str], path: &[&str]) -> bool {
    match (pattern, path) {
        ([], _) => true,
        (["*", rest @ ..], _) => covers(rest, path) || (!path.is_empty() && covers(rest, &path[1..])),
        ([first, rest @ ..], [own, below @ ..]) => first == own && covers(rest, below),
        ([..], []) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_counts() {
        assert_eq!(of_params(&["users", "ops", "authorizedKeys", "laptop"]), Realm::CloudInit);
        assert_eq!(of_params(&["users", "authorizedKeys"]), Realm::CloudInit);
        assert_eq!(of_params(&["users", "ops", "shell"]), Realm::Image);
        assert_eq!(of_params(&["distribution", "repositories", "debian", "source"]), Realm::Build);
        assert_eq!(of_params(&["kubernetes", "kubelet", "extra_systemd_args", "max-pods"]), Realm::Image);
        assert_eq!(of_params(&[] as &[&str]), Realm::Image);
        assert_eq!(of_field("NodeProfile", &["spec", "networking", "hostname"]), Realm::CloudInit);
        assert_eq!(of_field("AirshipImage", &["spec", "params", "kernel"]), Realm::Image);
        assert_eq!(of_field("AirshipImage", &["spec", "builder", "userDataFileName"]), Realm::CloudInit);
        assert_eq!(of_field("Phase", &["config"]), Realm::Build);
    }

    /// A field that was renamed would lose its realm without a word.
    #[test]
    fn every_path_of_the_table_is_a_field() {
        for (path, _) in REALMS {
            let text: String = path.iter().map(|part| format!("[{part}]")).collect();
            let found = crate::api::schema::explain::find(&format!("NodeProfile.spec{text}"));
            assert!(found.is_ok(), "{path:?}: {}", found.err().unwrap());
        }
    }
}
