//! The names of sysctls: sysctl.d(5) has two spellings of each.
//!
//! Owns: [`sysctl_path`].

/// The path below `/proc/sys`. Dots and slashes change places unless the first of both is a slash: then dots are part of
/// names.
pub fn sysctl_path(name: &str) -> String {
    let swap = |letter| match letter {
        '.' => '/',
        '/' => '.',
        letter => letter,
    };
    match name.find(['.', '/']) {
        Some(at) if name.as_bytes()[at] == b'.' => name.chars().map(swap).collect(),
        _ => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_separator_decides() {
        assert_eq!(sysctl_path("net.ipv4.conf.eth0/1.forwarding"), "net/ipv4/conf/eth0.1/forwarding");
        assert_eq!(sysctl_path("net/ipv4/conf/eth0.1/forwarding"), "net/ipv4/conf/eth0.1/forwarding");
        assert_eq!(sysctl_path("word"), "word");
    }
}
