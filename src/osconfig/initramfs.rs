//! `kernel.initramfs`: how the initramfs is made, for us and for kernel upgrades on the node (initramfs.conf(5)).

use super::editor::HEADER;
use super::modules::{loads, module_name};
use super::{Editor, Setting};
use crate::api::params::kernel::InitramfsModules;
use crate::error::{Error, Result};

/// Files in conf.d are read after initramfs.conf itself.
pub const FILE: &str = "/etc/initramfs-tools/conf.d/imagebuilder.conf";
const LIST: &str = "/etc/initramfs-tools/modules";
const COMPRESSORS: [&str; 7] = ["bzip2", "gzip", "lz4", "lzma", "lzop", "xz", "zstd"];

pub const SETTING: Setting = Setting { name: "initramfs", writes: &[FILE, LIST], initramfs: true, apply };

fn apply(editor: &mut Editor) -> Result<()> {
    let initramfs = &editor.params.kernel.initramfs;
    if !editor.exists("/etc/initramfs-tools") {
        return Ok(());
    }
    let modules = match initramfs.modules {
        InitramfsModules::Most => "most",
        InitramfsModules::Dep => "dep",
        InitramfsModules::Netboot => "netboot",
        InitramfsModules::List => "list",
    };
    let mut text = format!("{HEADER}MODULES={modules}\n");
    if let Some(compress) = &initramfs.compress {
        if !COMPRESSORS.contains(&compress.as_str()) {
            return Err(Error::documents(format!(
                "`{}` is not a compression of the initramfs",
                compress.escape_debug()
            ))
            .hint(format!("use one of {}", COMPRESSORS.join(", ")))
            .about(&["kernel", "initramfs", "compress"]));
        }
        text += &format!("COMPRESS={compress}\n");
    }
    if let Some(level) = initramfs.compress_level {
        if !(1..=19).contains(&level) {
            return Err(Error::documents(format!("`{level}` is not a level of the initramfs' compression"))
                .hint("`kernel.initramfs.compressLevel` is 1 (quick) to 19 (small), for gzip and xz to 9")
                .about(&["kernel", "initramfs", "compressLevel"]));
        }
        text += &format!("COMPRESSLEVEL={level}\n");
    }
    // No swap of the build machine must be searched for on the node.
    text += "RESUME=none\n";
    let origin = editor.origin(&["kernel", "initramfs"]);
    editor.write(FILE, text, 0o644, &origin)?;
    if initramfs.modules == InitramfsModules::List { list(editor) } else { Ok(()) }
}

/// With `list`, the initramfs holds the modules that the node is to load, and nothing else.
fn list(editor: &mut Editor) -> Result<()> {
    let mut text = HEADER.to_owned();
    for (name, _) in editor.params.kernel.modules.iter().filter(|(_, module)| loads(module)) {
        text += &format!("{}\n", module_name(name)?);
    }
    let origin = editor.origin(&["kernel", "modules"]);
    editor.write(LIST, text, 0o644, &origin)
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;

    #[test]
    fn writes_the_drop_in() {
        let (mut tree, mut params) = (fixture::rootfs(), fixture::params());
        params.kernel.initramfs.compress = Some("zstd".into());
        params.kernel.initramfs.modules = InitramfsModules::List;
        fixture::apply(&mut tree, &params).unwrap();
        assert!(fixture::text(&tree, FILE).unwrap().ends_with("MODULES=list\nCOMPRESS=zstd\nRESUME=none\n"));
        assert!(fixture::text(&tree, LIST).unwrap().ends_with("bonding\n"));
        params.kernel.initramfs.compress_level = Some(3);
        fixture::apply(&mut tree, &params).unwrap();
        assert!(fixture::text(&tree, FILE).unwrap().contains("\nCOMPRESS=zstd\nCOMPRESSLEVEL=3\n"));
        params.kernel.initramfs.compress_level = Some(20);
        assert!(fixture::apply(&mut tree, &params).unwrap_err().hints()[0].contains("1 (quick) to 19"));
        params.kernel.initramfs.compress_level = None;
        params.kernel.initramfs.compress = Some("rar".into());
        assert!(fixture::apply(&mut tree, &params).unwrap_err().hints()[0].contains("zstd"));
    }
}
