//! fstab(5): one line a file system, in mount order, found by file-system UUID.

use super::layout::Layout;
use crate::api::params::storage::FilesystemType;

pub fn render(layout: &Layout) -> String {
    let mut out = String::from("# <file system> <mount point> <type> <options> <dump> <pass>\n");
    for (_, mounted) in layout.mounts() {
        let kind = match mounted.kind {
            FilesystemType::Ext4 => "ext4",
            FilesystemType::Vfat => "vfat",
        };
        out.push_str(&format!(
            "UUID={} {} {kind} {} {} {}\n",
            mounted.uuid_text(),
            mounted.at,
            mounted.options,
            mounted.dump,
            mounted.fsck
        ));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::params::storage::Storage;
    use crate::boot::layout::Identity;

    #[test]
    fn by_uuid_parents_first() {
        let identity = Identity { site: "s".into(), image: "i".into() };
        let layout = Layout::new(&Storage::default(), &identity).unwrap();
        let text = render(&layout);
        let lines: Vec<Vec<&str>> = text.lines().skip(1).map(|line| line.split(' ').collect()).collect();
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[0][1..], ["/", "ext4", "defaults,errors=remount-ro,noatime", "0", "1"]);
        assert_eq!(lines[1][1..], ["/boot", "ext4", "defaults,errors=remount-ro,noatime", "0", "2"]);
        assert_eq!(lines[2][1..], ["/boot/efi", "vfat", "defaults,umask=0077,noatime", "0", "0"]);
        // FAT volume ids are written as two groups of four hexadecimal digits
        assert_eq!(lines[2][0].len(), "UUID=ABCD-1234".len());
        assert_eq!(lines[0][0], format!("UUID={}", layout.root().unwrap().uuid));
    }
}
