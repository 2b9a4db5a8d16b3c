//! Running maintainer scripts: preinst scripts directly, everything after unpacking through the target's own dpkg.
//!
//! Owns: [`Scripts`]. Programs that scripts call often are made quick meanwhile ([`helpers`](super::helpers)). All of it runs in the sandbox. `update-initramfs` is laid over with a program that does nothing:
//! the initramfs is made once, by a step of its own.

use std::path::{Path, PathBuf};

use super::binary::Binary;
use super::database;
use super::helpers::{Helpers, neutral};
use super::root::Root;
use crate::error::{Context, Error, Result};
use crate::report::Step;
use crate::sandbox::{Bind, Finished, Job, Sandbox};
use crate::tree::TreePath;
use crate::tree::clusters::Clusters;

/// Lines of output that an error shows.
const TAIL_LINES: usize = 30;
const CONTROL: &str = "tmp.ci";

pub struct Scripts<'a> {
    sandbox: &'a dyn Sandbox,
    /// What every script sees as `SOURCE_DATE_EPOCH`.
    epoch: i64,
    /// A program that does nothing, on the host.
    nothing: PathBuf,
    scratch: PathBuf,
    /// Without native helpers.
    plain: bool,
    clusters: Option<&'a Clusters>,
}

impl<'a> Scripts<'a> {
    /// `scratch` is a folder of the host for the time of the run; `plain` does without native helpers, which use what is in
    /// `clusters`.
    pub fn new(
        sandbox: &'a dyn Sandbox,
        epoch: i64,
        scratch: &Path,
        plain: bool,
        clusters: Option<&'a Clusters>,
    ) -> Result<Self> {
        use std::os::unix::fs::PermissionsExt;
        let nothing = scratch.join("nothing");
        let making = || format!("making {}", nothing.display());
        std::fs::write(&nothing, "#!/bin/sh\nexit 0\n").with_context(making)?;
        std::fs::set_permissions(&nothing, std::fs::Permissions::from_mode(0o755)).with_context(making)?;
        Ok(Scripts { sandbox, epoch, nothing, scratch: scratch.to_path_buf(), plain, clusters })
    }

    fn job(&self, root: &Root, argv: &[&str]) -> Result<Job> {
        let mut job = Job::new(argv.iter().copied());
        job.environment.push(("SOURCE_DATE_EPOCH".to_string(), self.epoch.to_string()));
        // Byte code is what packages have compiled: not what happened to be imported, with times of this run in it.
        job.environment.push(("PYTHONDONTWRITEBYTECODE".to_string(), "1".to_string()));
        let target = TreePath::literal("usr/sbin/update-initramfs");
        if root.stat(&target)?.is_some() {
            job.binds.push(Bind { source: self.nothing.clone(), target, read_only: true });
        }
        Ok(job)
    }

    /// Runs `preinst install` as dpkg does: the control files lie in `tmp.ci`, gone afterwards.
    /// `dpkg` is the version of dpkg that scripts are told of.
    pub fn preinst(&self, root: &Root, binary: &Binary, dpkg: &str) -> Result<()> {
        let Some(script) = binary.files.get("preinst") else { return Ok(()) };
        if !self.plain && std::str::from_utf8(&script.bytes).is_ok_and(neutral::does_nothing) {
            return Ok(());
        }
        let folder = database::at(CONTROL)?;
        root.make_folders(&folder)?;
        for (name, file) in &binary.files {
            root.write(&database::at(&format!("{CONTROL}/{name}"))?, &file.bytes, file.mode & 0o777)?;
        }
        let mut job = self.job(root, &["/var/lib/dpkg/tmp.ci/preinst", "install"])?;
        for (name, value) in [
            ("DPKG_MAINTSCRIPT_PACKAGE", binary.name.as_str()),
            ("DPKG_MAINTSCRIPT_PACKAGE_REFCOUNT", "1"),
            ("DPKG_MAINTSCRIPT_ARCH", binary.architecture.as_str()),
            ("DPKG_MAINTSCRIPT_NAME", "preinst"),
            ("DPKG_MAINTSCRIPT_DEBUG", "0"),
            ("DPKG_RUNNING_VERSION", dpkg),
            ("DPKG_ADMINDIR", "/var/lib/dpkg"),
            ("DPKG_ROOT", ""),
        ] {
            job.environment.push((name.to_string(), value.to_string()));
        }
        let finished = self.sandbox.run(root.path(), &job, &mut |line| tracing::debug!("{line}"));
        root.remove_folder(&folder)?;
        let finished = finished.with_context(|| format!("running preinst of package `{}`", binary.name))?;
        if finished.success {
            return Ok(());
        }
        Err(failed(&format!("preinst of package `{}`", binary.name), &finished))
    }

    /// Configures everything that is unpacked and processes triggers; `step` advances once per package.
    pub fn configure(&self, root: &Root, step: &Step) -> Result<()> {
        std::thread::scope(|scope| {
            let mut job = self.job(root, &["dpkg", "--force-unsafe-io", "--configure", "-a"])?;
            let helpers = match self.plain {
                true => None,
                false => Some(Helpers::start(scope, self.sandbox, root, &self.scratch, &mut job, self.clusters)?),
            };
            self.run_dpkg(root, &job, step)?;
            helpers.map_or(Ok(()), Helpers::finish)
        })
    }

    fn run_dpkg(&self, root: &Root, job: &Job, step: &Step) -> Result<()> {
        let mut culprits: Vec<String> = Vec::new();
        let finished = self.sandbox.run(root.path(), job, &mut |line| {
            tracing::debug!("{line}");
            if line.starts_with("Setting up ") {
                step.advance(1);
            } else if let Some(rest) = line.strip_prefix("dpkg: error processing package ") {
                culprits.push(rest.split(' ').next().unwrap_or_default().to_string());
            }
        })?;
        if finished.success {
            return Ok(());
        }
        let what = match culprits.as_slice() {
            [] => "dpkg --configure".to_string(),
            [one] => format!("configuring package `{one}`"),
            several => format!("configuring packages `{}`", several.join("`, `")),
        };
        Err(failed(&what, &finished))
    }

    /// Fails unless dpkg finds nothing to complain about.
    pub fn audit(&self, root: &Root) -> Result<()> {
        let finished = self.sandbox.run(root.path(), &self.job(root, &["dpkg", "--audit"])?, &mut |_| {})?;
        if finished.success && finished.tail.trim().is_empty() {
            return Ok(());
        }
        Err(failed("dpkg --audit", &finished))
    }
}

fn failed(what: &str, finished: &Finished) -> Error {
    let lines: Vec<&str> = finished.tail.trim_end().lines().collect();
    let tail = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n  ");
    Error::new(finished.kind(), format!("{what} failed: {}; the end of its output:\n  {tail}", finished.status))
}
