//! `deb-systemd-helper`, which packages with units call three to five times each: the calls that only ask, or that find
//! nothing to do, without Perl.
//!
//! Owns: which versions of the program are known, and the replacement. Follows deb-systemd-helper(1p):
//! `unmask` does nothing for units that are not there as links below `/etc/systemd/system` while no state of masked units
//! is kept; `was-enabled` is true when all links named in the unit's state file exist, and when there is no such file;
//! `debian-installed` tells whether there is one. Everything else is for the program itself.

use crate::tree::Digest;

/// First half of the SHA-256 digest of the whole program, and where it comes from.
const KNOWN: [(&str, &str); 1] = [("a895d5f077651960b6ca4ed9c53f8b36", "init-system-helpers 1.65.2 (Debian 12)")];

const REPLACEMENT: &str = r#"#!/bin/sh
plain() { exec /run/imagebuilder-helpers/plain/deb-systemd-helper "$@"; }
states=/var/lib/systemd/deb-systemd-helper-enabled
[ -n "${DPKG_MAINTSCRIPT_PACKAGE}" ] && [ -z "${DPKG_ROOT}${_DEB_SYSTEMD_HELPER_DEBUG}${_DEB_SYSTEMD_HELPER_PURGE}" ] || plain "$@"
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
esac
plain "$@"
"#;

/// What stands in for this program, if it is a known one.
pub(super) fn replacement(program: &Digest) -> Option<&'static str> {
    let digest = program.to_hex();
    KNOWN.iter().any(|(known, _)| digest.starts_with(known)).then_some(REPLACEMENT)
}
