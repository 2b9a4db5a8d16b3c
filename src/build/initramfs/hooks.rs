//! The shell side of the hook helpers: `hook-functions` of initramfs-tools with the two functions that start most
//! processes replaced by questions to the [`service`](super::service).
//!
//! Owns: which texts of `copy_file` are known, and the replacement; where mkinitramfs compresses. The distribution's hooks
//! decide what goes in and look at and edit what was copied, as ever; a text that is not known is left alone.

use sha2::{Digest as _, Sha256};

use super::copy::Behaviour;

/// Where the service's two pipes are inside the target.
pub const FOLDER: &str = "run/imagebuilder-hooks";
/// Inside the target, the file that every hook sources.
pub const FUNCTIONS: &str = "usr/share/initramfs-tools/hook-functions";
/// Inside the target, the program that makes an initramfs; it sources [`FUNCTIONS`].
pub const PROGRAM: &str = "usr/sbin/mkinitramfs";

/// Where the program finds that the compressor is missing, in all supported releases.
const FALLBACK: &str = "echo \"W: No ${compress} in ${PATH}, using gzip\" >&2\n";
/// Where it compresses, and what is done there in place of it: in Debian 12 and in Debian 13.
const COMPRESSING: [(&str, &str); 2] = [
    ("\n$compress -c \"${__TMPMAINCPIO}\" ||\n", "\nimagebuilder_compress \"${__TMPMAINCPIO}\" ||\n"),
    ("} | $compress -c ||\n", "} | imagebuilder_compress ||\n"),
];

/// SHA-256 of the definition of `copy_file`, first line to closing brace with its line end, in initramfs-tools of each
/// supported release, and what it does.
const KNOWN: [(&str, Behaviour); 3] = [
    // 0.142+deb12 (Debian 12) and 0.148 (Debian 13)
    ("51544bd45a95", Behaviour::Canonical),
    // 0.140ubuntu13 (Ubuntu 22.04) and 0.142ubuntu25 (Ubuntu 24.04)
    ("e24b9ff7ec37", Behaviour::LastLink),
    // 0.136ubuntu6 (Ubuntu 20.04)
    ("c4c76dc3be13", Behaviour::LastLink),
];

/// Questions and answers are fields that end in a unit separator (octal 037), which no file name here has; the first
/// field of a question counts the others. `plain` means: do it the distribution's way. `verbose` is theirs, too.
pub(super) const REPLACEMENT: &str = r#"
copy_file() {
	local imagebuilder_answer
	imagebuilder_answer=plain
	case "${verbose}:${2}" in
	y:*) ;;
	*:/*)
		printf '%s\037' 4 copy_file "${DESTDIR}" "${2}" "${3:-$2}" >/run/imagebuilder-hooks/ask &&
			read -r imagebuilder_answer </run/imagebuilder-hooks/answer || imagebuilder_answer=plain
		;;
	esac
	case "${imagebuilder_answer}" in
	[0-9]) return "${imagebuilder_answer}" ;;
	*) plain_copy_file "$@" ;;
	esac
}

modinfo() {
	local imagebuilder_answer
	case "$#:${1}:${3}:${4}:${5}" in
	5:-k:-F:firmware:/*)
		printf '%s\037' 2 firmware "${5}" >/run/imagebuilder-hooks/ask || return
		{
			read -r imagebuilder_answer || return
			if [ "${imagebuilder_answer}" != plain ]; then
				while read -r imagebuilder_answer && [ -n "${imagebuilder_answer}" ]; do
					printf '%s\n' "${imagebuilder_answer}"
				done
				return 0
			fi
		} </run/imagebuilder-hooks/answer
		;;
	esac
	command modinfo "$@"
}

cpio() {
	local imagebuilder_answer
	imagebuilder_answer=plain
	case "${__TMPMAINCPIO:-}:$*" in
	/*":--quiet --reproducible -o -H newc")
		printf '%s\037' 4 archive "${DESTDIR}" "${__TMPMAINCPIO}" "${imagebuilder_missing:-none}" \
			>/run/imagebuilder-hooks/ask &&
			read -r imagebuilder_answer </run/imagebuilder-hooks/answer || imagebuilder_answer=plain
		;;
	esac
	case "${imagebuilder_answer}" in
	archived) cat >/dev/null ;;
	*) command cpio "$@" ;;
	esac
}

imagebuilder_compress() {
	local imagebuilder_answer imagebuilder_archive
	if [ "${imagebuilder_missing:-}" != zstd ]; then
		${compress} -c "$@"
		return
	fi
	imagebuilder_archive="${1:-}"
	if [ -z "${imagebuilder_archive}" ]; then
		imagebuilder_archive="${DESTDIR}-archive"
		cat >"${imagebuilder_archive}" || return
	fi
	imagebuilder_answer=plain
	printf '%s\037' 2 compress "${imagebuilder_archive}" >/run/imagebuilder-hooks/ask &&
		read -r imagebuilder_answer </run/imagebuilder-hooks/answer || imagebuilder_answer=plain
	case "${imagebuilder_answer}" in
	compressed) cat "${imagebuilder_archive}" ;;
	*) ${compress} -c "${imagebuilder_archive}" ;;
	esac || return
	[ -n "${1:-}" ] || rm -f "${imagebuilder_archive}"
}
"#;

/// The text with the replacement, and how `copy_file` behaves in it; `None` if its text is not a known one.
pub fn replace(functions: &str) -> Option<(String, Behaviour)> {
    const START: &str = "copy_file() {\n";
    let start = match functions.starts_with(START) {
        true => 0,
        false => functions.find(&format!("\n{START}"))? + 1,
    };
    let end = start + functions[start..].find("\n}\n")? + "\n}\n".len();
    let digest = hex::encode(Sha256::digest(&functions[start..end]));
    let behaviour = KNOWN.iter().find(|(known, _)| digest.starts_with(known))?.1;
    let text = format!("{}plain_{}{REPLACEMENT}", &functions[..start], &functions[start..]);
    Some((text, behaviour))
}

/// mkinitramfs with our compression where the target lacks the one it is configured for; `None` for an unknown text.
pub fn replace_compression(program: &str) -> Option<String> {
    let once = |text: &str| program.matches(text).count() == 1;
    let (theirs, ours) = COMPRESSING.iter().find(|(theirs, _)| once(theirs))?;
    let remembered = format!("{FALLBACK}\timagebuilder_missing=\"${{compress}}\"\n");
    once(FALLBACK).then(|| program.replace(FALLBACK, &remembered).replace(theirs, ours))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_text_is_left_alone() {
        assert!(replace("copy_file() {\n\tcp \"$2\" \"${DESTDIR}/$2\"\n}\n").is_none());
        assert!(replace("other() {\n:\n}\n").is_none());
        assert!(replace("").is_none());
    }

    #[test]
    fn the_replacement_is_valid_shell_and_names_the_folder() {
        assert!(REPLACEMENT.contains(&format!("/{FOLDER}/ask")) && REPLACEMENT.contains(&format!("/{FOLDER}/answer")));
        let parsed = std::process::Command::new("sh").args(["-n", "-c", REPLACEMENT]).status();
        assert!(parsed.unwrap().success());
    }

    #[test]
    fn compression_is_replaced_where_it_is_known() {
        let program = "if ! x; then\n\techo \"W: No ${compress} in ${PATH}, using gzip\" >&2\n\tcompress=gzip\nfi\n";
        for (theirs, ours) in COMPRESSING {
            let text = replace_compression(&format!("{program}{theirs}:")).unwrap();
            assert_eq!(
                text,
                program.replace("\tcompress=gzip", "\timagebuilder_missing=\"${compress}\"\n\tcompress=gzip")
                    + ours
                    + ":"
            );
            assert!(replace_compression(&format!("{program}{theirs}{theirs}")).is_none());
            assert!(replace_compression(theirs).is_none());
        }
        assert!(replace_compression(program).is_none());
    }
}
