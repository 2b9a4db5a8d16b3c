//! The files of a live system that starts from the network: kernel, initramfs, squashfs, seed, and the iPXE script that
//! finds them (<https://ipxe.org/scripting>; `fetch=` of live-boot(7)).
//!
//! Owns: [`write`], the names of the files ([`names`]) and the script. The script is the image, the others lie beside it
//! under its name with other extensions, so that any web server can offer the folder as it is. The seed is in the form of
//! cloud-init's NoCloud data source, whose address may have `%s` for the name of the part.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::Request;
use super::iso::{self, Live};
use crate::boot::live;
use crate::error::{Context, Error, Kind, Result};
use crate::format::disk::sums::Sums;
use crate::seed::nocloud;
use crate::tree::{Content, Tree, TreePath};

const KERNEL: &str = "vmlinuz";
const INITRD: &str = "initrd.img";
const SQUASHFS: &str = "squashfs";
/// What cloud-init puts in the place of `%s`.
const SEED: [&str; 4] = ["user-data", "meta-data", "vendor-data", "network-config"];

/// What lies beside the script of this name, by file name.
pub fn names(script: &str) -> Vec<String> {
    let stem = stem(script);
    [KERNEL, INITRD, SQUASHFS].iter().chain(&SEED).map(|extension| format!("{stem}.{extension}")).collect()
}

/// Whether everybody may read it; seeds are secret.
pub fn is_public(name: &str) -> bool {
    !SEED.iter().any(|extension| name.ends_with(extension))
}

fn stem(script: &str) -> &str {
    script.strip_suffix(".ipxe").unwrap_or(script)
}

/// Writes the script and all that lies beside it. Gives the checksums of the script.
pub fn write(request: &Request<'_>, live: &Live, script: &Path) -> Result<Sums> {
    let tree = request.tree;
    let name =
        script.file_name().and_then(|name| name.to_str()).ok_or_else(|| Error::build("the script has no name"))?;
    let stem = stem(name);
    let beside = |extension: &str| script.with_file_name(format!("{stem}.{extension}"));
    let text = text(stem, &live::command_line(request.params)?)?;
    for (extension, bytes) in seed(live)? {
        private(&beside(extension), &bytes)?;
    }
    let (kernel, initrd) = live::kernel(tree)?;
    for (extension, path) in [(KERNEL, kernel), (INITRD, initrd)] {
        copy(content(tree, &path)?, &beside(extension))?;
    }
    let root = live::root_file_system(tree);
    iso::squash(request, live, &root, &create(&beside(SQUASHFS))?, 0)?;
    let mut file = create(script)?;
    std::io::Write::write_all(&mut file, text.as_bytes()).with_context(|| format!("writing {}", script.display()))?;
    Sums::of(text.as_bytes(), request.digests)
}

/// The parts of the seed by the names that NoCloud asks for.
fn seed(live: &Live) -> Result<[(&'static str, Vec<u8>); 4]> {
    let seed = &live.seed;
    let [user, meta, vendor, network] = SEED;
    Ok([
        (user, seed.user_data.clone()),
        (meta, nocloud::meta_data(&seed.meta_data)?),
        (vendor, Vec::new()),
        (network, nocloud::network_config(&seed.network_data)?),
    ])
}

/// The kernel line is that of the ISO but for where the squashfs and the seed are.
fn text(stem: &str, line: &[String]) -> Result<String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    if !stem.bytes().all(plain) {
        return Err(Error::new(Kind::Documents, format!("`{stem}` is no name for files that iPXE loads"))
            .hint("use letters, digits, `-`, `.` and `_` in `spec.image.outputFileName`"));
    }
    let mut words = vec![format!("initrd={stem}.{INITRD}")];
    for word in line {
        if word.contains("${") || word.contains(char::is_whitespace) {
            return Err(Error::new(Kind::Documents, format!("`{word}` cannot stand in an iPXE script"))
                .hint("change it in `kernel.commandLine`"));
        }
        // Of this one cloud-init takes the address. That it is the one to ask says `ci.ds`, also to releases that look at
        // the list in the image alone.
        match word.starts_with("ds=") {
            true => words.extend(["ci.ds=NoCloud".to_owned(), format!("ds=nocloud-net;s=${{base-url}}/{stem}.%s")]),
            false => words.push(word.clone()),
        }
    }
    words.push(format!("fetch=${{base-url}}/{stem}.{SQUASHFS}"));
    Ok(format!(
        "#!ipxe
# Written by imagebuilder. What it loads lies beside it: `base-url` is where, unless it is the boot server itself.
isset ${{base-url}} || set base-url http://${{next-server}}
kernel ${{base-url}}/{stem}.{KERNEL} {}
initrd ${{base-url}}/{stem}.{INITRD}
boot
",
        words.join(" ")
    ))
}

fn content<'a>(tree: &'a Tree, path: &'a TreePath) -> Result<&'a Content> {
    match tree.inode(path).map(|(_, entry)| &entry.kind) {
        Some(crate::tree::Kind::File(content)) => Ok(content),
        _ => Err(Error::build(format!("{path} is not a file"))),
    }
}

fn copy(content: &Content, to: &Path) -> Result<()> {
    let mut file = create(to)?;
    let copied = std::io::copy(&mut content.reader(), &mut file);
    copied.map(drop).with_context(|| format!("writing {}", to.display()))
}

fn create(path: &Path) -> Result<File> {
    let file = File::options().read(true).write(true).create(true).truncate(true).open(path);
    file.with_context(|| format!("making {}", path.display()))
}

fn private(path: &Path, bytes: &[u8]) -> Result<()> {
    let file = File::options().write(true).create_new(true).mode(0o600).open(path);
    let written = file.and_then(|mut file| std::io::Write::write_all(&mut file, bytes));
    written.with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_says_where_everything_is() {
        let line: Vec<String> = ["boot=live", "ds=ConfigDrive", "console=ttyS0"].map(str::to_owned).to_vec();
        let script = text("ephemeral", &line).unwrap();
        assert!(script.starts_with("#!ipxe\n"));
        assert!(script.contains(
            "kernel ${base-url}/ephemeral.vmlinuz initrd=ephemeral.initrd.img boot=live \
             ci.ds=NoCloud ds=nocloud-net;s=${base-url}/ephemeral.%s console=ttyS0 fetch=${base-url}/ephemeral.squashfs\n"
        ));
        assert!(text("a b", &line).is_err());
        assert!(text("a", &["x=${y}".to_owned()]).is_err());
        assert!(is_public("a.squashfs") && !is_public("a.user-data") && !is_public("a.network-config"));
        assert_eq!(names("a.ipxe")[..3], ["a.vmlinuz", "a.initrd.img", "a.squashfs"]);
    }
}
