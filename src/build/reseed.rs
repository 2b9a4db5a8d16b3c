//! Another seed in a finished ISO.
//!
//! Owns: [`Base`] (an ISO that can be given another seed) and [`Base::write`]. The squashfs is copied and not looked at:
//! the result is what building with that seed gives, because a seed changes nothing outside of its place
//! (`format::iso9660`). The checksums of the result follow from a state that the place has of what is before it.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::evidence::Checksums;
use super::pack::iso::{protect, seed_files};
use crate::error::{Context, Error, Kind, Result};
use crate::format::disk::sums::{Digests, Sums};
use crate::format::iso9660::seed::{Area, Files};
use crate::interrupt;
use crate::seed::{META_DATA, NETWORK_DATA, Seed, USER_DATA};
use crate::tree::ReadAt;

/// An ISO that has a place for a seed.
pub struct Base {
    path: PathBuf,
    image: Image,
    size: u64,
    area: Area,
}

struct Image(File);

impl ReadAt for Image {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        self.0.read_exact_at(buffer, offset).context("reading the image")
    }
}

impl Base {
    pub fn open(path: &Path) -> Result<Base> {
        let context = || format!("opening {}", path.display());
        let file = File::open(path).with_context(context)?;
        let meta = file.metadata().with_context(context)?;
        if !meta.is_file() {
            return Err(Error::new(Kind::Usage, "not a file").add_context(context()));
        }
        let (image, size) = (Image(file), meta.len());
        let area = Area::find(&image, size).with_context(context)?;
        Ok(Base { path: path.to_owned(), image, size, area })
    }

    /// The files of the seed that is in it.
    pub fn files(&self) -> Result<Files> {
        self.area.files(&self.image, self.size).with_context(|| format!("reading the seed of {}", self.path.display()))
    }

    /// The same as a seed, taken as it is: nothing of it is checked again.
    pub fn seed(&self) -> Result<Seed> {
        let mut files = self.files()?;
        let mut take = |name: &str| files.remove(name).unwrap_or_default();
        let [meta_data, user_data, network_data] = [take(META_DATA), take(USER_DATA), take(NETWORK_DATA)];
        Ok(Seed { meta_data, user_data, network_data, secrets: Vec::new() })
    }

    /// Writes the image with another seed, and its checksums beside it: complete, or not at all. Gives all paths. As after
    /// `cp`, the bytes reach the disk when the kernel sees fit: waiting for it would take as long as the copy, and after a
    /// power cut the same command makes the same file.
    pub fn write(&self, seed: &Seed, output: &Path, digests: Digests) -> Result<Vec<PathBuf>> {
        let context = || format!("writing {}", output.display());
        let area = self.area.encode(&seed_files(seed)).with_context(context)?;
        let name = output.file_name().and_then(|name| name.to_str()).filter(|_| !output.is_dir());
        let name =
            name.ok_or_else(|| Error::new(Kind::Usage, "the output is not a file name").add_context(context()))?;
        let folder = output.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        let prefix = format!(".{name}.partial-");
        let new = tempfile::Builder::new().prefix(&prefix).tempdir_in(folder).with_context(context)?;
        let image = new.path().join(name);
        fs::copy(&self.path, &image).with_context(context)?;
        interrupt::check()?;
        let file = File::options().read(true).write(true).open(&image).with_context(context)?;
        protect(seed, &file).with_context(context)?;
        file.write_all_at(&area, self.area.offset).with_context(context)?;
        let mut rest = vec![0; (self.size - self.area.offset) as usize];
        file.read_exact_at(&mut rest, self.area.offset).with_context(context)?;
        let sums: Checksums = Sums::resume(self.area.label.state, &rest)?.into();
        let mut side_files = Vec::new();
        for (wanted, extension, digest) in
            [(digests.sha256, "sha256", &sums.sha256), (digests.md5, "md5sum", &sums.md5)]
        {
            let path = folder.join(format!("{name}.{extension}"));
            // A reader may meet an image without its checksum, never one with that of another.
            match fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error).with_context(context),
                _ => {}
            }
            if let (true, Some(digest)) = (wanted, digest) {
                let file = new.path().join(format!("{name}.{extension}"));
                File::create(&file).and_then(|mut out| writeln!(out, "{digest}")).with_context(context)?;
                side_files.push((file, path));
            }
        }
        fs::rename(&image, output).with_context(context)?;
        let mut paths = vec![output.to_owned()];
        for (from, to) in side_files {
            fs::rename(&from, &to).with_context(context)?;
            paths.push(to);
        }
        Ok(paths)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::disk::{sparse, sums::State};
    use crate::format::iso9660::{Options, Plan};
    use crate::tree::{Digest, Meta, Tree, TreePath};

    fn seed(user_data: &[u8]) -> Seed {
        Seed {
            meta_data: b"{}\n".to_vec(),
            user_data: user_data.to_vec(),
            network_data: b"{}\n".to_vec(),
            secrets: Vec::new(),
        }
    }

    fn image(folder: &Path, user_data: &[u8]) -> PathBuf {
        let mut tree = Tree::new();
        tree.write_file(&TreePath::literal("AIRSHIP"), "x", Meta::root(0o644), &"t".into()).unwrap();
        let options = Options {
            volume_id: "config-2".into(),
            time: 0,
            disk_guid: uuid::Uuid::nil(),
            esp_guid: uuid::Uuid::nil(),
            bios: None,
            esp: None,
            payload: TreePath::literal("live/filesystem.squashfs"),
        };
        let plan = Plan::new(&tree, options).unwrap();
        let frame = plan.frame(5000).unwrap();
        let path = folder.join(format!("base-{}.iso", user_data.len()));
        let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        file.set_len(frame.disk.size()).unwrap();
        sparse::copy(&frame.disk, &file, &|_| ()).unwrap();
        let mut before = vec![0; frame.seed_offset as usize];
        file.read_exact_at(&mut before, 0).unwrap();
        let area = plan.seed_area(&frame, uuid::Uuid::nil(), Digest::of(b""), State::of(&before).unwrap()).unwrap();
        file.write_all_at(&area.encode(&seed_files(&seed(user_data))).unwrap(), frame.seed_offset).unwrap();
        path
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_site_has_the_bytes_of_building_it() {
        let folder = tempfile::tempdir().unwrap();
        let (base, wanted) = (image(folder.path(), b"#one"), image(folder.path(), b"#another"));
        let output = folder.path().join("site.iso");
        let files = Base::open(&base).unwrap().write(&seed(b"#another"), &output, Digests::BOTH).unwrap();
        assert!(fs::read(&output).unwrap() == fs::read(wanted).unwrap());
        let sums = Checksums::of(&output, Digests::BOTH).unwrap();
        assert_eq!(fs::read_to_string(&files[1]).unwrap().trim(), sums.sha256.unwrap());
        assert_eq!(fs::read_to_string(&files[2]).unwrap().trim(), sums.md5.unwrap());
        assert_eq!(Base::open(&output).unwrap().files().unwrap()["user_data"], b"#another");
    }

    #[test]
    fn what_cannot_be_done_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let base = image(folder.path(), b"#one");
        let before = names(folder.path());
        let write = |user_data: &[u8], output: &str| {
            Base::open(&base).unwrap().write(&seed(user_data), &folder.path().join(output), Digests::BOTH).unwrap_err()
        };
        assert_eq!(write(&vec![b'#'; 9 << 20], "site.iso").kind(), Kind::Space);
        assert_eq!(write(b"#", "").kind(), Kind::Usage);
        assert_eq!(names(folder.path()), before);
        for other in [folder.path().join("nothing"), folder.path().to_owned()] {
            assert!(Base::open(&other).is_err());
        }
        let text = folder.path().join("text");
        fs::write(&text, "no image").unwrap();
        assert!(Base::open(&text).map(|_| ()).unwrap_err().to_string().contains("no ISO image"));
    }
}
