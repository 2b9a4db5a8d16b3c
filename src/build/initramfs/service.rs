//! The native side of the hook helpers: answers the questions that hooks ask while mkinitramfs runs.
//!
//! Owns: [`Service`], two named pipes and the thread that serves them. A shell asks with a builtin and waits for the
//! answer, so nothing is started and everything happens in the order of the script. A question that cannot be answered
//! gets `plain`, and the distribution's own way is taken. Only files of the target are touched (`package::root`).

use std::io::{BufWriter, Read, Write};
use std::path::Path;
use std::thread::JoinHandle;

use super::archive::{Packer, ZSTD};
use super::copy::{Answer, Behaviour, copy_file};
use super::cpio::Archive;
use super::modinfo;
use crate::error::{Context, Error, Result};
use crate::package::root::Root;
use crate::sandbox::pipes::{Asker, Pipes};
use crate::tree::TreePath;

pub struct Service {
    asker: Asker,
    thread: Option<JoinHandle<Counts>>,
}

/// How many questions were answered, and how many were left to the distribution.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub answered: u64,
    pub plain: u64,
}

impl Service {
    /// Serves the target that lies at `root` through pipes made in `folder`, which a sandbox shows to the hooks.
    pub fn start(folder: &Path, root: &Path, behaviour: Behaviour) -> Result<Service> {
        let (mut pipes, asker) = Pipes::make(folder)?;
        let root = root.to_path_buf();
        let serve = move || {
            let mut counts = Counts::default();
            while let Some(fields) = pipes.question() {
                let answer = answer(&root, behaviour, &fields).unwrap_or_else(|error| {
                    tracing::debug!("a hook's question is left to the distribution's helper: {error}");
                    None
                });
                match answer {
                    Some(_) => counts.answered += 1,
                    None => counts.plain += 1,
                }
                pipes.answer(&answer.unwrap_or_else(|| b"plain\n".to_vec()));
            }
            counts
        };
        let thread = std::thread::Builder::new().name("initramfs hooks".into()).spawn(serve);
        Ok(Service { asker, thread: Some(thread.context("starting the helper of initramfs hooks")?) })
    }

    /// To be called when no hook runs any more.
    pub fn stop(mut self) -> Result<Counts> {
        self.end().ok_or_else(|| Error::build("the helper of initramfs hooks has failed"))
    }

    fn end(&mut self) -> Option<Counts> {
        let thread = self.thread.take()?;
        self.asker.quit().then_some(())?;
        thread.join().ok()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.end();
    }
}

/// `None`: plain.
fn answer(root: &Path, behaviour: Behaviour, fields: &[Vec<u8>]) -> Result<Option<Vec<u8>>> {
    // Opened for each question: hooks move folders about in between.
    let root = Root::open(root)?;
    let fields: Vec<&[u8]> = fields.iter().map(Vec::as_slice).collect();
    match fields.as_slice() {
        [b"copy_file", folder, source, target] => Ok(match copy_file(&root, behaviour, folder, source, target)? {
            Answer::Status(status) => Some(format!("{status}\n").into_bytes()),
            Answer::Plain => None,
        }),
        [b"firmware", module] => firmware(&root, module),
        [b"compress", archive] => compress(&root, archive),
        [b"archive", folder, archive, missing] => make_archive(&root, folder, archive, *missing == b"zstd"),
        _ => Err(Error::build("a question that is not understood")),
    }
}

fn firmware(root: &Root, module: &[u8]) -> Result<Option<Vec<u8>>> {
    let Some(path) = TreePath::new(module) else { return Ok(None) };
    let Some((path, _)) = root.resolve(&path)? else { return Ok(None) };
    let Some(bytes) = root.read(&path)? else { return Ok(None) };
    let Some(values) = modinfo::values(&bytes, "firmware") else { return Ok(None) };
    if values.iter().any(|value| value.is_empty() || value.contains(&b'\n')) {
        return Ok(None);
    }
    let mut text = b"native\n".to_vec();
    for value in values {
        text.extend(value);
        text.push(b'\n');
    }
    // An empty line ends the list.
    text.push(b'\n');
    Ok(Some(text))
}

/// Compresses an archive in its place, if it is not compressed already.
fn compress(root: &Root, archive: &[u8]) -> Result<Option<Vec<u8>>> {
    let Some(path) = TreePath::new(archive) else { return Ok(None) };
    let Some(mut file) = root.open_file(&path)? else { return Ok(None) };
    let mut magic = Vec::new();
    (&mut file).take(ZSTD.len() as u64).read_to_end(&mut magic).context("reading the initramfs")?;
    if magic != ZSTD {
        let packed = Packer::new().pack(magic.as_slice().chain(file))?;
        root.write(&path, &packed, 0o600)?;
    }
    Ok(Some(b"compressed\n".to_vec()))
}

/// Makes the archive of a folder: compressed at once, if it is to be ours.
fn make_archive(root: &Root, folder: &[u8], archive: &[u8], pack: bool) -> Result<Option<Vec<u8>>> {
    let (Some(folder), Some(path)) = (TreePath::new(folder), TreePath::new(archive)) else { return Ok(None) };
    let Some(contents) = Archive::of(root, &folder)? else { return Ok(None) };
    if pack {
        let mut encoder = Packer::new().encoder()?;
        contents.write(&mut encoder)?;
        root.write(&path, &encoder.finish().context("compressing the initramfs")?, 0o600)?;
    } else {
        let parent = root.parent(&path)?;
        let mut file = BufWriter::with_capacity(1 << 20, root.create(&parent, &path, 0o600)?);
        contents.write(&mut file)?;
        file.flush().context("writing the initramfs")?;
    }
    Ok(Some(b"archived\n".to_vec()))
}

#[cfg(test)]
mod tests {
    use super::super::hooks;
    use super::*;
    use std::fs;
    use std::process::Command;

    /// Runs shell text with the replacement, its pipes in `folder` and a plain function that says so.
    fn shell(folder: &Path, script: &str) -> String {
        let functions = hooks::REPLACEMENT.replace(&format!("/{}", hooks::FOLDER), &folder.display().to_string());
        let text = format!("verbose=n\nplain_copy_file() {{ echo plain \"$2\"; }}\n{functions}\n{script}");
        let output = Command::new("sh").args(["-c", &text]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn hooks_ask_and_wait_for_the_answer() {
        let (root, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir_all(root.path().join("d")).unwrap();
        fs::create_dir_all(root.path().join("usr/bin")).unwrap();
        fs::write(root.path().join("usr/bin/tool"), "x").unwrap();
        let service = Service::start(folder.path(), root.path(), Behaviour::Canonical).unwrap();
        let said = shell(
            folder.path(),
            "DESTDIR=/d; copy_file binary /usr/bin/tool; echo $?; copy_file binary /usr/bin/tool /bin/; echo $?
             copy_file binary /nothing; echo $?; copy_file binary relative; copy_file binary /usr/bin/tool /a/../b
             verbose=y copy_file binary /usr/bin/tool",
        );
        assert_eq!(said, "0\n1\n2\nplain relative\nplain /usr/bin/tool\nplain /usr/bin/tool\n");
        assert_eq!(fs::read(root.path().join("d/usr/bin/tool")).unwrap(), b"x");
        assert_eq!(service.stop().unwrap(), Counts { answered: 3, plain: 1 });
    }

    #[test]
    fn an_archive_is_compressed_where_the_program_is_missing() {
        let (root, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let archive = "070701 is how it begins ".repeat(1000);
        let packed = Packer::new().pack(archive.as_bytes()).unwrap();
        let service = Service::start(folder.path(), root.path(), Behaviour::Canonical).unwrap();
        let place = root.path().display();
        // The shell sees the target's root as its own; here it does not, so that it is told another way.
        let run = |script: &str| shell(folder.path(), &format!("cd {place}; {script}; od -An -tx1 out | tr -d ' \\n'"));
        for script in [
            "imagebuilder_compress archive >out",
            "DESTDIR=made; imagebuilder_compress <archive >out; [ ! -e made-archive ] || echo left",
        ] {
            fs::write(root.path().join("archive"), &archive).unwrap();
            let script = format!("compress='tr a-z A-Z'; imagebuilder_missing=zstd; {script}");
            assert_eq!(run(&script), hex::encode(&packed), "{script}");
        }
        fs::write(root.path().join("archive"), "x").unwrap();
        let told = run("compress=echo; imagebuilder_missing=lz4; imagebuilder_compress said >out");
        assert_eq!(told, hex::encode("-c said\n"));
        assert_eq!(service.stop().unwrap(), Counts { answered: 2, plain: 0 });
    }

    #[test]
    fn nonsense_is_answered_and_ends_nothing() {
        let (root, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let service = Service::start(folder.path(), root.path(), Behaviour::Canonical).unwrap();
        let ask = folder.path().join("ask").display().to_string();
        let answer = folder.path().join("answer").display().to_string();
        for question in ["1\\037what\\037", "99\\037", "x\\037", "0\\037"] {
            let script = format!("printf '{question}' >{ask}; read -r a <{answer}; echo $a");
            let output = Command::new("sh").args(["-c", &script]).output().unwrap();
            assert_eq!(output.stdout, b"plain\n", "{question}");
        }
        assert_eq!(service.stop().unwrap(), Counts { answered: 0, plain: 4 });
    }
}
