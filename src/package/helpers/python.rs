//! `py3compile -p PACKAGE`, as nearly all packages with Python modules call it: the same files, in the same order, to the
//! same compiler process, without the three other interpreters that the program starts to find out which those are.
//!
//! Owns: which versions of the program are known, and [`modules`]. Follows py3compile(1) for one supported version of
//! Python: the package's files that end in `.py` below `/usr/lib/python3*/{dist,site}-packages`, in the order of
//! `dpkg -L`, by name to the standard input of `python3.N -m py_compile -`.

use sha2::{Digest as _, Sha256};

use crate::error::Result;
use crate::package::root::Root;
use crate::tree::TreePath;

const PROGRAM: &str = "usr/bin/py3compile";
/// What the program consists of, beside itself.
const PARTS: [&str; 4] = [
    "usr/share/python3/debpython/__init__.py",
    "usr/share/python3/debpython/files.py",
    "usr/share/python3/debpython/interpreter.py",
    "usr/share/python3/debpython/version.py",
];
/// First half of the SHA-256 digest of the program without the line that has its version, and of its parts.
const KNOWN: [(&str, &str); 1] = [("4c5e6c7ac1fb4b7992c409bde0dabed4", "python3-defaults 3.11 (Debian 12)")];
const DEFAULTS: &str = "usr/share/python3/debian_defaults";
/// Modules that are not to be compiled are listed here, as `type|versions|folder|pattern`.
const EXCLUDED: &str = "usr/share/python3/bcep";

/// What there is to compile: the interpreter, and the modules by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Modules {
    pub interpreter: String,
    pub names: Vec<String>,
}

/// Nothing where anything is unusual: then the program itself has to see to it.
pub(super) fn modules(root: &Root, arguments: &[&str]) -> Result<Option<Modules>> {
    let ["-p", package] = arguments else { return Ok(None) };
    let Some(interpreter) = interpreter(root)? else { return Ok(None) };
    if !known(root)? {
        return Ok(None);
    }
    let Some(excluded) = excluded(root)? else { return Ok(None) };
    let diversions = root.read_text(&TreePath::literal("var/lib/dpkg/diversions"))?;
    let Some(list) = list(root, package)? else { return Ok(None) };
    let short = interpreter.trim_start_matches("/usr/bin/python");
    let mut names = Vec::new();
    for name in list.lines().filter(|name| name.ends_with(".py")) {
        match version(name) {
            None => {}
            Some(version) if version == "3" || version == short => {
                // Perhaps excluded, compiled before, diverted, or of a name that does not fit into a line.
                if excluded.iter().any(|folder| name.starts_with(folder))
                    || diversions.contains(name)
                    || name.contains('\r')
                    || is_compiled(root, name)?
                {
                    return Ok(None);
                }
                names.push(name.to_owned());
            }
            Some(_) => return Ok(None),
        }
    }
    Ok(Some(Modules { interpreter, names }))
}

fn known(root: &Root) -> Result<bool> {
    let program = root.read_text(&TreePath::literal(PROGRAM))?;
    let mut hash = Sha256::new();
    for line in program.split_inclusive('\n').filter(|line| !line.contains("version='%prog ")) {
        hash.update(line);
    }
    for part in PARTS {
        hash.update(root.read(&TreePath::literal(part))?.unwrap_or_default());
    }
    let digest = hex::encode(hash.finalize());
    tracing::debug!("py3compile and its parts: {digest}");
    Ok(KNOWN.iter().any(|(known, _)| digest.starts_with(known)))
}

/// The one supported interpreter, if it is there.
fn interpreter(root: &Root) -> Result<Option<String>> {
    let defaults = root.read_text(&TreePath::literal(DEFAULTS))?;
    let supported = defaults.lines().find_map(|line| line.strip_prefix("supported-versions = "));
    let plain = |name: &&str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'.');
    let Some(name) = supported.map(str::trim).filter(plain) else { return Ok(None) };
    let path = format!("usr/bin/{name}");
    let there = TreePath::new(&path).map(|path| root.resolve(&path)).transpose()?.flatten().is_some();
    Ok((there && name.starts_with("python3.")).then(|| format!("/{path}")))
}

/// The folders of all lists of modules that are not to be compiled; nothing if one cannot be read.
fn excluded(root: &Root) -> Result<Option<Vec<String>>> {
    let place = TreePath::literal(EXCLUDED);
    let mut folders = Vec::new();
    for name in root.names(&place)? {
        let text = root.read_text(&place.join(&name))?;
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some(folder) = line.split('|').nth(2).filter(|folder| folder.starts_with('/')) else { return Ok(None) };
            folders.push(folder.to_owned());
        }
    }
    Ok(Some(folders))
}

fn list(root: &Root, package: &str) -> Result<Option<String>> {
    let (name, architecture) = package.split_once(':').unwrap_or((package, ""));
    let word = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    if !word(name) || !word(architecture) {
        return Ok(None);
    }
    // With the architecture for `Multi-Arch: same`, without for all others.
    for file in [format!("{package}.list"), format!("{name}.list")] {
        let path = TreePath::new(format!("var/lib/dpkg/info/{file}"));
        if let Some(bytes) = path.map(|path| root.read(&path)).transpose()?.flatten() {
            return Ok(String::from_utf8(bytes).ok());
        }
    }
    Ok(None)
}

/// `3` of `/usr/lib/python3/dist-packages/x.py`, `3.11` of `/usr/lib/python3.11/dist-packages/x.py`.
fn version(name: &str) -> Option<&str> {
    let (_, rest) = name.split_once("/usr/lib/python")?;
    let (version, rest) = rest.split_once('/')?;
    let folder = rest.split('/').next()?;
    let (major, minor) = version.split_once('.').unwrap_or((version, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let public = ["site-packages", "dist-packages"].iter().any(|public| folder.starts_with(public));
    (public && major.len() == 1 && digits(major) && digits(minor)).then_some(version)
}

/// Whether anything stands where compiled modules of the same folder go.
fn is_compiled(root: &Root, name: &str) -> Result<bool> {
    let Some(folder) = TreePath::new(name).and_then(|path| path.parent()) else { return Ok(true) };
    let stem = name.rsplit('/').next().unwrap_or_default().trim_end_matches(".py");
    let compiled = root.names(&folder.join(b"__pycache__"))?;
    Ok(compiled.iter().any(|file| file.starts_with(format!("{stem}.").as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_modules_are_told_by_their_place() {
        assert_eq!(version("/usr/lib/python3/dist-packages/a/b.py"), Some("3"));
        assert_eq!(version("/usr/lib/python3.11/site-packages/a.py"), Some("3.11"));
        for other in
            ["/usr/lib/python3/a.py", "/usr/share/a.py", "/usr/lib/python3.11/a.py", "/usr/lib/pythonx/dist-packages/a"]
        {
            assert_eq!(version(other), None, "{other}");
        }
    }

    #[test]
    fn only_a_known_program_is_stood_in_for() {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in [
            (DEFAULTS, "[DEFAULT]\nsupported-versions = python3.11\n"),
            ("usr/bin/python3.11", ""),
            (PROGRAM, "unknown"),
            ("var/lib/dpkg/info/x.list", "/usr/lib/python3/dist-packages/x.py\n"),
        ] {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let root = Root::open(root.path()).unwrap();
        assert_eq!(interpreter(&root).unwrap().as_deref(), Some("/usr/bin/python3.11"));
        assert_eq!(list(&root, "x:amd64").unwrap().as_deref(), Some("/usr/lib/python3/dist-packages/x.py\n"));
        assert_eq!(list(&root, "../x").unwrap(), None);
        assert_eq!(modules(&root, &["-p", "x"]).unwrap(), None);
        assert_eq!(excluded(&root).unwrap(), Some(Vec::new()));
        std::fs::create_dir_all(root.path().join(EXCLUDED)).unwrap();
        std::fs::write(root.path().join(EXCLUDED).join("x"), "# x\nre|-3.5|/usr/lib/python3/x|.*y.py\n").unwrap();
        assert_eq!(excluded(&root).unwrap(), Some(vec!["/usr/lib/python3/x".to_owned()]));
    }
}
