//! Helpers of maintainer scripts, made quick: programs that packages call often, laid over with our own for the time of
//! `dpkg --configure`.
//!
//! Owns: [`Helpers`] and which programs they stand in for. Each way has the same files as result: byte compiling
//! and a few long commands of scripts ([`scripts`]) are put off to workers that run the distribution's own program beside
//! dpkg ([`workers`]), or find what came of the same in an earlier build ([`bytecode`]); questions to the unit helper and the enabling of units are answered without starting Perl
//! ([`systemd`]), certificates are linked by one process ([`certificates`]); what does nothing in a first installation is
//! left out ([`neutral`]); host keys, which no image may
//! hold (seal removes them), are not made. What is not known to be equal goes to the program itself, which lies under
//! another name meanwhile. `--plain-scripts` does without all of it.

mod bytecode;
mod certificates;
pub(super) mod neutral;
mod python;
mod scripts;
mod systemd;
mod units;
mod workers;

use std::path::Path;

use self::workers::Workers;
use super::root::Root;
use crate::error::{Context, Result};
use crate::sandbox::{Bind, Job, Sandbox};
use crate::tree::clusters::Clusters;
use crate::tree::{Digest, TreePath};

/// Where scripts find the pipes and the programs that were laid over.
const FOLDER: &str = "run/imagebuilder-helpers";

/// Asks for the program to be run by a worker. Waits for the answer, so that workers are there when the script goes on.
const PUT_OFF: &str = r#"#!/bin/sh
answer=plain
printf '%s\037' "$(($# + 1))" "${0##*/}" "$@" >/run/imagebuilder-helpers/ask &&
	read -r answer </run/imagebuilder-helpers/answer
[ "${answer}" = ok ] && exit 0
exec "/run/imagebuilder-helpers/plain/${0##*/}" "$@"
"#;

/// `ssh-keygen -q -f KEY -N '' ...` and `ssh-keygen -l -f KEY.pub`, as openssh-server calls them.
const NO_HOST_KEYS: &str = r#"#!/bin/sh
case "$#:$1:$2:$3:$4" in
*:-q:-f:/etc/ssh/ssh_host_*_key:-N) [ -z "$5" ] && exit 0 ;;
3:-l:-f:/etc/ssh/ssh_host_*_key.pub:) exit 0 ;;
esac
exec "/run/imagebuilder-helpers/plain/${0##*/}" "$@"
"#;

/// A program and what stands in for it.
struct StandIn {
    program: &'static str,
    /// Beginnings of the SHA-256 digests of the versions for which it may, each with the name of the version; every one
    /// where nothing is said.
    known: Option<&'static [(&'static str, &'static str)]>,
    text: &'static str,
}

impl StandIn {
    fn knows(&self, program: &Digest) -> bool {
        let Some(known) = self.known else { return true };
        let digest = program.to_hex();
        known.iter().any(|(known, _)| digest.starts_with(known))
    }
}

const STAND_INS: [StandIn; 4] = [
    StandIn { program: "usr/bin/py3compile", known: None, text: PUT_OFF },
    StandIn { program: "usr/bin/ssh-keygen", known: None, text: NO_HOST_KEYS },
    systemd::STAND_IN,
    certificates::STAND_IN,
];

/// For the time of one job.
pub(super) struct Helpers<'scope> {
    workers: Option<Workers<'scope>>,
    _folder: tempfile::TempDir,
}

impl<'scope> Helpers<'scope> {
    /// Lays the helpers over those programs that the target has. `scratch` is a folder of the host, `clusters` what earlier
    /// builds have left.
    pub fn start<'a: 'scope>(
        scope: &'scope std::thread::Scope<'scope, '_>,
        sandbox: &'a dyn Sandbox,
        root: &Root,
        scratch: &Path,
        job: &mut Job,
        clusters: Option<&'a Clusters>,
    ) -> Result<Self> {
        let making = || format!("making a folder for helpers in {}", scratch.display());
        let folder = tempfile::Builder::new().prefix("helpers-").tempdir_in(scratch).with_context(making)?;
        // Programs that drop their rights must get through it.
        open_up(folder.path())?;
        let plain = folder.path().join("plain");
        std::fs::create_dir(&plain).with_context(making)?;
        let place = Bind { source: folder.path().to_path_buf(), target: TreePath::literal(FOLDER), read_only: false };
        let environment = job.environment.clone();
        let mut laid_over = 0;
        let mut asks = false;
        for stand_in in STAND_INS {
            let target = TreePath::literal(stand_in.program);
            let program = stand_in.program.rsplit('/').next().unwrap_or_default();
            let Some(real) = root.read(&target)?.filter(|real| stand_in.knows(&Digest::of(real))) else { continue };
            let (kept, ours) = (plain.join(program), folder.path().join(program));
            executable(&kept, &real)?;
            executable(&ours, stand_in.text.as_bytes())?;
            job.binds.push(Bind { source: ours, target, read_only: true });
            asks |= ["py3compile", "deb-systemd-helper"].contains(&program);
            laid_over += 1;
        }
        for (number, script) in scripts::edit(root)?.into_iter().enumerate() {
            let source = folder.path().join(format!("script-{number}"));
            executable(&source, script.text.as_bytes())?;
            job.binds.push(Bind { source, target: script.path, read_only: true });
            asks |= script.later;
            laid_over += 1;
        }
        for (name, text) in [(scripts::PROGRAM, scripts::LATER), (neutral::LOCALES, neutral::LOCALES_PROGRAM)] {
            executable(&folder.path().join(name), text.as_bytes())?;
        }
        if laid_over > 0 {
            job.binds.push(place.clone());
        }
        let work = Job { environment, binds: vec![place], ..Job::default() };
        let workers = match asks {
            true => Some(Workers::start(scope, sandbox, root.path(), folder.path(), work, clusters)?),
            false => None,
        };
        Ok(Helpers { workers, _folder: folder })
    }

    /// To be called when the job has ended: waits for what was put off.
    pub fn finish(mut self) -> Result<()> {
        self.workers.take().map_or(Ok(()), Workers::finish)
    }
}

fn executable(path: &Path, bytes: &[u8]) -> Result<()> {
    std::fs::write(path, bytes).with_context(|| format!("making {}", path.display()))?;
    open_up(path)
}

fn open_up(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))
        .with_context(|| format!("setting the mode of {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::testing::executable;

    /// Runs a replacement with its folder elsewhere; the plain program says what it was asked.
    fn run(text: &str, name: &str, arguments: &[&str]) -> (Option<i32>, String) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("plain")).unwrap();
        executable(&folder.path().join("plain").join(name), "#!/bin/sh\necho plain \"$@\"\n");
        let ours = folder.path().join(name);
        executable(&ours, text.replace(&format!("/{FOLDER}"), &folder.path().display().to_string()));
        let output = Command::new(ours).args(arguments).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    }

    #[test]
    fn only_known_programs_are_replaced() {
        for stand_in in STAND_INS {
            let Some(known) = stand_in.known else { continue };
            assert!(!stand_in.knows(&Digest::of(b"another version")));
            for (half, _) in known {
                assert!(stand_in.knows(&Digest::from_hex(&format!("{half}{}", "0".repeat(32))).unwrap()));
            }
        }
    }

    #[test]
    fn only_host_keys_are_not_made() {
        let run = |arguments: &[&str]| run(NO_HOST_KEYS, "ssh-keygen", arguments);
        let key = "/etc/ssh/ssh_host_rsa_key";
        assert_eq!(run(&["-q", "-f", key, "-N", "", "-t", "rsa"]), (Some(0), String::new()));
        assert_eq!(run(&["-l", "-f", "/etc/ssh/ssh_host_rsa_key.pub"]), (Some(0), String::new()));
        for other in [&["-q", "-f", key, "-N", "secret"][..], &["-l", "-f", "/root/x.pub"], &["-A"]] {
            assert_eq!(run(other), (Some(0), format!("plain {}\n", other.join(" "))));
        }
    }
}
