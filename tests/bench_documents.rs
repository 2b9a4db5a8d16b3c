//! The documents of `benches/peers` ask for what its other tools are given: the same packages, no compression unless
//! the work is the one that shows it. The harness puts an overlay on them, so they must render from a copy as well.

use std::collections::BTreeSet;
use std::path::Path;

use imagebuilder::api::image_configuration::ImageType;
use imagebuilder::plan;
use imagebuilder::plan::intent::Compression;

fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers")
}

#[test]
fn every_entry_point_loads() {
    let cases = [
        ("qcow2", ImageType::Qcow, "node.qcow2", Compression::None),
        ("qcow2-zstd", ImageType::Qcow, "node.qcow2", Compression::Zstd),
        ("tar", ImageType::Tar, "node.tar", Compression::None),
    ];
    for (name, kind, file, compression) in cases {
        let intent = plan::load_entry_point(&folder().join("documents").join(name)).unwrap();
        let [output] = &intent.outputs[..] else { panic!("{name}: {:?}", intent.outputs) };
        assert_eq!((output.kind, output.file_name.as_str(), output.compression), (kind, file, compression), "{name}");
    }
}

#[test]
fn packages_are_those_of_the_other_tools() {
    let text = std::fs::read_to_string(folder().join("packages")).unwrap();
    // The other tools keep apt in every image.
    let wanted: BTreeSet<&str> = text.lines().filter(|line| !line.starts_with('#')).chain(["apt"]).collect();
    let intent = plan::load_entry_point(&folder().join("documents/qcow2")).unwrap();
    let found: BTreeSet<&str> = intent.params.software.packages.keys().map(String::as_str).collect();
    assert_eq!(found, wanted);
}
