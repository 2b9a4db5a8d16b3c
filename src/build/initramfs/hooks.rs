//! The shell side of the hook helpers: `hook-functions` of initramfs-tools with the two functions that start most
//! processes replaced by questions to the [`service`](super::service).
//!
//! Owns: which texts of `copy_file` are known, and the replacement. The distribution's hooks decide what goes in and
//! look at and edit what was copied, as ever; a text that is not known is left alone.

use sha2::{Digest as _, Sha256};

use super::copy::Behaviour;

/// Where the service's two pipes are inside the target.
pub const FOLDER: &str = "run/imagebuilder-hooks";
/// Inside the target, the file that every hook sources.
pub const FUNCTIONS: &str = "usr/share/initramfs-tools/hook-functions";

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
}
