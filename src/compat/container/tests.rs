//! Orders as callers give them, and mistakes in them.

use super::*;

fn environment(pairs: &[(&str, &str)]) -> Environment {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

const MOUNTS: &str = "1 0 0:1 / / rw - overlay overlay rw\n2 1 0:2 / /proc rw - proc proc rw\n\
    3 1 0:3 / /dev rw - tmpfs tmpfs rw\n4 1 8:1 /x /config rw - ext4 /dev/sda rw\n5 1 8:1 /h /etc/hosts rw - ext4 /dev/sda rw\n\
    6 1 0:9 / /work rw - tmpfs tmpfs rw\n7 1 8:1 /y /zcache rw - ext4 /dev/sda rw\n";

fn order(pairs: &[(&str, &str)], stdin: &str) -> Result<Order> {
    let environment = environment(pairs);
    let own = ["/zcache".into()];
    Order::read(&mut Surroundings {
        environment: &environment,
        stdin: &mut stdin.as_bytes(),
        mountinfo: MOUNTS,
        volume: None,
        own_folders: &own,
    })
}

/// As `cut_image.sh` writes it: every file indented by four, blank lines too.
const STDIN: &str = "user_data:\n    #cloud-config\n    \n    users: []\nnetwork_config:\n    {\"links\": []}\nosconfig:\n    kernel:\n      modules: {}\n\nqcow:\n    qcow_compress: false\noutputFileName: control-plane.qcow2\n";

#[test]
fn sections_of_v2() {
    let order = order(&[("VERSION", "v2"), ("IMAGE_TYPE", "qcow"), ("IMAGE", "x:1")], STDIN).unwrap();
    assert_eq!((order.contract, order.image_type), (Contract::V2, ImageType::Qcow));
    assert_eq!(order.volume, Path::new("/config"));
    assert_eq!((order.output_file_name.as_str(), order.image_name()), ("control-plane.qcow2", "control-plane"));
    assert_eq!(order.texts.osconfig.unwrap().trim_end(), "kernel:\n  modules: {}");
    assert_eq!(order.texts.qcow.unwrap(), "qcow_compress: false\n");
    assert_eq!(order.user_data.unwrap(), b"#cloud-config\n\nusers: []\n");
    assert_eq!(order.builder_image.as_deref(), Some("x:1"));
}

#[test]
fn missing_and_empty_sections_of_v2_are_fine_for_a_qcow() {
    let v2 = [("VERSION", "v2"), ("IMAGE_TYPE", "qcow")];
    let plain = order(&v2, "osconfig:\nqcow:\n").unwrap();
    assert_eq!((plain.texts.osconfig, plain.output_file_name.as_str()), (None, "airship-ubuntu.qcow2"));
    // Upstream's v2 does not look at `img_name`.
    assert_eq!(order(&v2, "qcow:\n    img_name: own.qcow2\n").unwrap().output_file_name, "own.qcow2");
}

/// Upstream looks for the network config under the name of the user data.
#[test]
fn an_iso_needs_both_seed_files() {
    let refused = |stdin: &str| order(&[("VERSION", "v2")], stdin).unwrap_err().to_string();
    assert!(refused("user_data:\n    x\n").contains("no network config given"));
    assert!(refused("network_config:\n    x\n").contains("no user data given"));
    let order = order(&[("VERSION", "v2")], "user_data:\n    x\nnetwork_config:\n    y\n").unwrap();
    assert_eq!((order.image_type, order.output_file_name.as_str()), (ImageType::Iso, "ephemeral.iso"));
}

#[test]
fn a_resource_list_is_taken() {
    let v2 = [("VERSION", "v2"), ("IMAGE_TYPE", "qcow")];
    let text = "apiVersion: config.kubernetes.io/v1alpha1\nkind: ResourceList\nitems: []\nfunctionConfig:\n  kind: ConfigMap\n  data:\n    outputFileName: a.qcow2\n    osconfig: |\n      limits: []\n";
    let one = order(&v2, text).unwrap();
    assert_eq!((one.output_file_name.as_str(), one.texts.osconfig.as_deref()), ("a.qcow2", Some("limits: []\n")));
    assert!(one.documents.is_none());
    let text = "kind: ResourceList\nitems:\n- kind: AirshipImage\n  metadata: {name: x}\n";
    assert_eq!(order(&v2, text).unwrap().documents.unwrap().len(), 1);
    // They hold the seed of an ISO themselves.
    assert_eq!(order(&[("VERSION", "v2")], text).unwrap().image_type, ImageType::Iso);
}

#[test]
fn what_is_not_a_contract_is_refused() {
    for (pairs, words) in [
        (&[("VERSION", "v3")][..], "not a container contract"),
        (&[][..], "`BUILDER_CONFIG` is not set"),
        (&[("BUILDER_CONFIG", "/nowhere/x.yaml")][..], "does not exist"),
        (&[("VERSION", "v2"), ("IMAGE_TYPE", "vmdk")][..], "unknown image type `vmdk`"),
    ] {
        assert!(order(pairs, "").unwrap_err().to_string().contains(words), "{words}");
    }
    let bad = order(&[("VERSION", "v2"), ("IMAGE_TYPE", "qcow")], "outputFileName: ../x.qcow2\n").unwrap_err();
    assert!(bad.to_string().contains("not a file name"), "{bad}");
    let memory = "2 1 0:2 / /work rw - tmpfs t rw\n3 1 0:25 /somebody/out /config rw - tmpfs tmpfs rw\n";
    assert_eq!(v2::volume(memory, &[]).unwrap(), Path::new("/config"));
    let none = v2::volume("1 0 0:1 / / rw - overlay o rw\n2 1 0:2 / /work rw - tmpfs t rw\n", &[]).unwrap_err();
    assert!(none.to_string().contains("no volume is mounted"));
}

#[test]
fn v1_reads_the_file_on_the_volume_and_variables_win() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path().display().to_string();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    // As airshipctl's IsoConfiguration, and as the upstream samples.
    write(
        "qcow.yaml",
        &format!(
            "kind: IsoConfiguration\ncontainer:\n  volume: /srv/images:{here}\n  image: x\nbuilder:\n  imageType: iso\n  outputFileName: one.qcow2\n  osconfigVarsFileName: os.yaml\n  qcowVarsFileName: none.yaml\n  outputMetadataFileName: meta.yaml\n"
        ),
    );
    write("os.yaml", "limits: []\n");
    write("qcow-vars.yaml", "img_name: two.qcow2\n");
    let config = format!("{here}/qcow.yaml");
    let given = [("BUILDER_CONFIG", config.as_str()), ("IMAGE_TYPE", "qcow"), ("QCOW_CONFIG_FILE", "qcow-vars.yaml")];
    let one = order(&given, "").unwrap();
    assert_eq!((one.contract, one.image_type), (Contract::V1, ImageType::Qcow));
    assert_eq!((one.volume.as_path(), one.host_folder.as_path()), (folder.path(), Path::new("/srv/images")));
    assert_eq!((one.output_file_name.as_str(), one.output_metadata_file_name.as_str()), ("one.qcow2", "meta.yaml"));
    assert!(one.texts.replaces_osconfig);
    // airshipctl gives this name, misspelt; what the file says has always won. Without that, it counts.
    let with = [&given[..], &[("OUTPUT_FILE_NAME", "ephemerial.iso")][..]].concat();
    assert_eq!(order(&with, "").unwrap().output_file_name, "one.qcow2");
    write("qcow.yaml", &format!("container: {{volume: \"{here}\"}}\n"));
    let with =
        [&given[..], &[("OUTPUT_FILE_NAME", "three.qcow2"), ("OUTPUT_METADATA_FILE_NAME", "m.yaml")][..]].concat();
    let three = order(&with, "").unwrap();
    assert_eq!((three.output_file_name.as_str(), three.output_metadata_file_name.as_str()), ("three.qcow2", "m.yaml"));
    assert_eq!(order(&given, "").unwrap().output_file_name, "two.qcow2");
    let gone = [&given[..], &[("OSCONFIG_FILE", "gone.yaml")][..]].concat();
    assert!(order(&gone, "").unwrap_err().to_string().contains("gone.yaml"));
}

#[test]
fn a_volume_is_two_folders_or_one() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("x.yaml");
    for (text, words) in [
        ("builder: {}\n", "`container.volume` is missing"),
        ("container: {volume: \"a:b:c:d\"}\n", "not `HOST-FOLDER:CONTAINER-FOLDER`"),
        ("container: {volume: \"/a:b\"}\n", "not `HOST-FOLDER:CONTAINER-FOLDER`"),
        ("", "is empty"),
    ] {
        std::fs::write(&file, text).unwrap();
        let path = file.display().to_string();
        let error = order(&[("BUILDER_CONFIG", path.as_str())], "").unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    }
}
