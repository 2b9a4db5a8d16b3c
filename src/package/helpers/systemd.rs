//! `deb-systemd-helper`, which packages with units call three to five times each: the calls that only ask, or that find
//! nothing to do, without Perl; those that write are answered by [`units`](super::units).
//!
//! Owns: which versions of the program are known, and the replacement. Follows deb-systemd-helper(1p):
//! `unmask` does nothing for units that are not there as links below `/etc/systemd/system` while no state of masked units
//! is kept; `was-enabled` is true when all links named in the unit's state file exist, and when there is no such file;
//! `debian-installed` tells whether there is one. `enable` runs `systemctl preset` for a unit without such a file. Everything
//! else is for the program itself.

use super::StandIn;

pub(super) const STAND_IN: StandIn =
    StandIn { program: "usr/bin/deb-systemd-helper", known: Some(&KNOWN), text: REPLACEMENT };

/// First half of the SHA-256 digest of the whole program, and where it comes from.
const KNOWN: [(&str, &str); 3] = [
    ("a895d5f077651960b6ca4ed9c53f8b36", "init-system-helpers 1.65 to 1.69 (Debian 12 and 13, Ubuntu 24.04)"),
    ("ff5c494922224cf488b1bcbfb2e8edac", "1.62 (Ubuntu 22.04)"),
    ("76e6e95c8a57ffa45df1ca84342b97f3", "1.57 (Ubuntu 20.04)"),
];

const REPLACEMENT: &str = r#"#!/bin/sh
plain() { exec /run/imagebuilder-helpers/plain/deb-systemd-helper "$@"; }
states=/var/lib/systemd/deb-systemd-helper-enabled
[ -n "${DPKG_MAINTSCRIPT_PACKAGE}" ] && [ -z "${DPKG_ROOT}${_DEB_SYSTEMD_HELPER_DEBUG}${_DEB_SYSTEMD_HELPER_PURGE}" ] || plain "$@"
native() {
	answer=plain
	printf '%s\037' "$(($# + 1))" deb-systemd-helper "$@" >/run/imagebuilder-helpers/ask &&
		read -r answer </run/imagebuilder-helpers/answer
	[ "${answer}" != done ] || exit 0
}
for word in "$@"; do
	case "${word}" in */*) plain "$@" ;; esac
done
case "$#:$1:$2" in
[2-9]:unmask:*)
	for unit in "$@"; do
		case "${unit}" in -*) plain "$@" ;; esac
		[ ! -e "/etc/systemd/system/${unit}" ] || plain "$@"
	done
	[ ! -e /var/lib/systemd/deb-systemd-helper-masked ] || plain "$@"
	[ ! -e /var/lib/systemd/deb-systemd-user-helper-masked ] || plain "$@"
	exit 0
	;;
3:--quiet:was-enabled)
	case "$3" in -*) plain "$@" ;; esac
	[ -e "${states}/$3.dsh-also" ] || exit 0
	while read -r link; do
		[ -L "${link}" ] || exit 1
	done <"${states}/$3.dsh-also"
	exit 0
	;;
2:debian-installed:[!-]*)
	[ -f "${states}/$2.dsh-also" ]
	exit
	;;
2:update-state:[!-]*) native update-state "$2" ;;
2:enable:[!-]*)
	fresh=again
	if [ ! -f "${states}/$2.dsh-also" ]; then
		fresh=fresh
		[ -x /bin/systemctl ] || plain "$@"
		systemctl --root=/ --system --preset-mode=enable-only preset "$2" || plain "$@"
	fi
	native enable "$2" "${fresh}"
	;;
esac
plain "$@"
"#;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::process::Command;

    use super::*;
    use crate::testing::executable;

    #[test]
    fn questions_are_answered_and_work_is_left_to_the_program() {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path.trim_start_matches('/'));
        for folder in ["etc/systemd/system/x.wants", "var/lib/systemd/deb-systemd-helper-enabled", "run/plain"] {
            std::fs::create_dir_all(at(folder)).unwrap();
        }
        let states = at("var/lib/systemd/deb-systemd-helper-enabled");
        let link = at("etc/systemd/system/x.wants/on.service");
        symlink("/lib/systemd/system/on.service", &link).unwrap();
        std::fs::write(states.join("on.service.dsh-also"), format!("{}\n", link.display())).unwrap();
        std::fs::write(states.join("off.service.dsh-also"), format!("{}-gone\n", link.display())).unwrap();
        symlink("/dev/null", at("etc/systemd/system/masked.service")).unwrap();
        let text = REPLACEMENT
            .replace("/run/imagebuilder-helpers", &at("run").display().to_string())
            .replace("=/var/lib", &format!("={}", at("var/lib").display()))
            .replace(" /var/lib", &format!(" {}", at("var/lib").display()))
            .replace("\"/etc/", &format!("\"{}/", at("etc").display()));
        let program = "#!/bin/sh\necho plain \"$@\"\nexit 9\n";
        let (ours, theirs) = (at("ours"), at("run/plain/deb-systemd-helper"));
        executable(&ours, text);
        executable(&theirs, program);
        let ask = |arguments: &str| {
            let output = Command::new("sh")
                .args(["-c", &format!("exec {} {arguments}", ours.display())])
                .env("DPKG_MAINTSCRIPT_PACKAGE", "x")
                .output()
                .unwrap();
            (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
        };
        for (arguments, code) in [
            ("unmask on.service other.socket", 0),
            ("--quiet was-enabled on.service", 0),
            ("--quiet was-enabled never.service", 0),
            ("--quiet was-enabled off.service", 1),
            ("debian-installed on.service", 0),
            ("debian-installed never.service", 1),
        ] {
            assert_eq!(ask(arguments), (code, String::new()), "{arguments}");
        }
        for arguments in [
            "unmask on.service masked.service",
            "was-enabled on.service",
            "--user unmask on.service",
            "--quiet was-enabled a/b.service",
            "enable on.service",
            "update-state on.service",
            "purge on.service",
        ] {
            assert_eq!(ask(arguments), (9, format!("plain {arguments}\n")), "{arguments}");
        }
        std::fs::create_dir(at("var/lib/systemd/deb-systemd-helper-masked")).unwrap();
        assert_eq!(ask("unmask on.service").0, 9);
    }
}
