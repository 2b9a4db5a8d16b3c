//! The lines with which upstream's tools start the builder's container: those of the image-builder's `cut_image.sh`
//! (contract v2) and of airshipctl's GenericContainer `iso-build-image` (contract v1, through bash).
//!
//! `IMAGEBUILDER_TEST_IMAGE` names the builder's image in a container engine that `docker` reaches; with
//! `IMAGEBUILDER_CONTAINER=<cache with downloads>` besides, the lines build, and what they leave is looked at (minutes).
//! Without an engine, the program is started as the engine would start it.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

const PROXIES: [&str; 6] = ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "no_proxy", "NO_PROXY"];
/// What `cut_image.sh` gives a container for a qcow2, beside the caller's own folder.
const MOUNTED: [&str; 6] = [
    "/dev:/dev:rw",
    "/dev/pts:/dev/pts:rw",
    "/proc:/proc:rw",
    "/sys:/sys:rw",
    "/lib/modules:/lib/modules:rw",
    "/run/systemd/resolve:/run/systemd/resolve:rw",
];
const USER_DATA: &str = "#cloud-config\nhostname: from-the-order\n";
const NETWORK_DATA: &str =
    "links:\n  - {id: eth0, type: phy, ethernet_mac_address: \"52:54:00:6c:99:85\"}\nnetworks: []\nservices: []\n";

fn image() -> Option<String> {
    let image = std::env::var("IMAGEBUILDER_TEST_IMAGE").ok().filter(|image| !image.is_empty());
    if image.is_none() {
        println!("skipped: no builder's image for a real container engine is named (IMAGEBUILDER_TEST_IMAGE)");
    }
    image
}

fn cache() -> Option<String> {
    let cache = std::env::var("IMAGEBUILDER_CONTAINER").ok().filter(|cache| !cache.is_empty());
    if cache.is_none() {
        println!("skipped: IMAGEBUILDER_CONTAINER names no cache");
    }
    cache
}

fn fed(command: &mut Command, stdin: &str) -> Output {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A program that ends at once does not read it.
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    child.wait_with_output().unwrap()
}

/// `docker run`, as far as this machine's engine needs help with it.
fn docker(extra: &[String]) -> Command {
    let mut command = Command::new("docker");
    command.args(["run", "-i", "--rm"]);
    let bridges = Command::new("docker").args(["network", "ls", "-q", "-f", "driver=bridge"]).output().unwrap();
    if bridges.stdout.is_empty() {
        command.args(["--network", "host"]);
    }
    command.args(extra);
    command
}

/// Upstream asks for privileges. An engine that has none itself cannot give them; the builder does not need them.
fn privileged(image: &str) -> &'static [&'static str] {
    let tried = fed(docker(&[]).args(["--privileged", image, "--version"]), "");
    if tried.status.success() {
        return &["--privileged"];
    }
    println!(
        "without `--privileged`, which this engine cannot give: {}",
        String::from_utf8_lossy(&tried.stderr).trim()
    );
    &[]
}

/// Downloads of earlier builds, where the container has its cache.
fn with_cache(cache: &str) -> Vec<String> {
    vec!["--volume".into(), format!("{cache}:/root/.cache/imagebuilder")]
}

/// As `cut_image.sh TYPE WORKDIR IMAGE`.
fn cut_image(kind: &str, workdir: &Path, image: &str, proxy: &str, extra: &[String], order: &str) -> Output {
    let mut command = docker(extra);
    if kind == "qcow" {
        command.args(privileged(image));
        let here = |mount: &&str| Path::new(mount.split(':').next().unwrap()).is_dir();
        for mount in MOUNTED.iter().filter(|mount| here(mount)) {
            command.args(["--volume", mount]);
        }
        command.args(["--env", "BUILDER_CONFIG=/config/qcow.yaml"]);
    }
    command.arg("--volume").arg(format!("{}:/config", workdir.display()));
    command.arg("--env").arg(format!("IMAGE_TYPE={kind}")).args(["--env", "VERSION=v2"]);
    for name in PROXIES {
        command.arg("--env").arg(format!("{name}={}", if name.to_lowercase() == "no_proxy" { "" } else { proxy }));
    }
    command.arg("--env").arg(format!("IMAGE={image}")).arg(image);
    fed(&mut command, order)
}

/// As airshipctl runs the GenericContainer `iso-build-image`.
fn generic_container(kind: &str, folder: &Path, image: &str, extra: &[String]) -> Output {
    let mut command = docker(extra);
    command.args(privileged(image)).arg("--mount").arg(format!("type=bind,source={},target=/config", folder.display()));
    for (name, value) in generic_environment(kind, "/config") {
        command.arg("--env").arg(format!("{name}={value}"));
    }
    command.args([image, "/bin/bash", "-c", "/usr/bin/local/entrypoint.sh 1>&2"]);
    fed(&mut command, RESOURCES)
}

/// What airshipctl writes to the standard input of any container.
const RESOURCES: &str = "apiVersion: config.kubernetes.io/v1alpha1\nkind: ResourceList\nitems: []\nfunctionConfig:\n  \
                         apiVersion: airshipit.org/v1alpha1\n  kind: DoesNotMatter\n  metadata: {name: isogen}\n";

fn generic_environment(kind: &str, volume: &str) -> BTreeMap<&'static str, String> {
    [
        ("IMAGE_TYPE", kind.to_owned()),
        ("BUILDER_CONFIG", format!("{volume}/builder-conf.yaml")),
        ("USER_DATA_FILE", "user-data".to_owned()),
        ("NET_CONFIG_FILE", "network-data".to_owned()),
        ("OUTPUT_FILE_NAME", "ephemerial.iso".to_owned()),
        ("OUTPUT_METADATA_FILE_NAME", "output-metadata.yaml".to_owned()),
    ]
    .into()
}

/// What the phase before it (`iso-cloud-init-data`) leaves on the volume.
fn cloud_init_data(folder: &Path, volume: &str) {
    let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).unwrap();
    write("user-data", USER_DATA);
    write("network-data", NETWORK_DATA);
    let configuration = format!(
        "apiVersion: airshipit.org/v1alpha1\nkind: IsoConfiguration\nmetadata: {{name: isogen}}\nbuilder:\n  \
         userDataSelector: {{kind: Secret, labelSelector: airshipit.org/ephemeral-user-data}}\n  userDataKey: userData\n  \
         networkConfigSelector: {{kind: BareMetalHost, labelSelector: airshipit.org/ephemeral-node}}\n  \
         networkConfigKey: networkData\n  outputFileName: ephemeral.iso\ncontainer:\n  volume: /srv/images:{volume}\n  \
         image: quay.io/airshipit/image-builder:latest-ubuntu_focal\n  containerRuntime: docker\n"
    );
    write("builder-conf.yaml", &configuration);
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}\n")).collect()
}

fn iso_order() -> String {
    let (user, network) = (indented(USER_DATA), indented(NETWORK_DATA));
    format!("user_data:\n{user}network_config:\n{network}outputFileName: ephemeral.iso\n")
}

fn failed(output: &Output, words: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(output.stdout.is_empty(), "airshipctl reads documents there: {output:?}");
    for word in words {
        assert!(text.contains(word), "`{word}` is not in: {text}");
    }
}

fn worked(output: &Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stdout.is_empty(), "airshipctl reads documents there: {output:?}");
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn airshipctls_command_reaches_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("entrypoint.sh");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_imagebuilder"), &script).unwrap();
    let volume = tempfile::tempdir().unwrap();
    let here = volume.path().to_str().unwrap();
    cloud_init_data(volume.path(), here);
    std::fs::remove_file(volume.path().join("network-data")).unwrap();
    // The engine starts the image's entry with the command of the document.
    let line = format!("{} 1>&2", script.display());
    let mut command = Command::new(&script);
    command.args(["/bin/bash", "-c", &line]).envs(generic_environment("iso", here));
    failed(&fed(&mut command, RESOURCES), &["reading network config", "network-data"]);
    assert_eq!(names(volume.path()), ["builder-conf.yaml", "user-data"]);
}

#[test]
fn orders_that_cannot_be_built_are_refused_in_the_container() {
    let Some(image) = image() else { return };
    let volume = tempfile::tempdir().unwrap();
    let typo = "osconfig:\n    limts: []\nqcow:\n    img_name: x.qcow2\noutputFileName: data-plane.qcow2\n";
    let refused = cut_image("qcow", volume.path(), &image, "", &[], typo);
    failed(&refused, &["unknown variable `limts`", "osconfig variables:1:1"]);
    let refused = cut_image("iso", volume.path(), &image, "", &[], "user_data:\n    x\noutputFileName: a.iso\n");
    failed(&refused, &["no network config given"]);
    failed(&cut_image("vmdk", volume.path(), &image, "", &[], ""), &["image type `vmdk`"]);
    failed(&generic_container("iso", volume.path(), &image, &[]), &["/config/builder-conf.yaml does not exist"]);
    cloud_init_data(volume.path(), "/not-mounted");
    failed(&generic_container("qcow", volume.path(), &image, &[]), &["/not-mounted is not there"]);
    assert_eq!(names(volume.path()), ["builder-conf.yaml", "network-data", "user-data"]);
}

/// Other programs of the image, and the program's own verbs.
#[test]
fn the_image_has_a_shell_and_verbs() {
    let Some(image) = image() else { return };
    let said = |words: &[&str]| {
        let output = fed(docker(&[]).arg(&image).args(words), "");
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let version = format!("imagebuilder {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(said(&["--version"]), (Some(0), version.clone()));
    assert_eq!(said(&["imagebuilder", "--version"]), (Some(0), version));
    assert_eq!(said(&["bash", "-c", "set -o pipefail; echo $((6 * 7)) | cat"]), (Some(0), "42\n".into()));
    assert_eq!(said(&["/bin/sh", "-c", "exit 7"]).0, Some(7));
    // Every small program that there is a name for.
    let line = "for name in /usr/bin/*; do [ \"$(readlink $name)\" != busybox ] || busybox --list | grep -qxF ${name##*/} || echo $name; done";
    assert_eq!(said(&["sh", "-c", line]), (Some(0), String::new()));
}

/// All that is downloaded goes through the proxy, in whichever spelling it is given.
#[test]
fn each_spelling_of_a_proxy_is_used_in_the_container() {
    let Some(image) = image() else { return };
    let volume = tempfile::tempdir().unwrap();
    let order = "osconfig:\n    limits: []\noutputFileName: x.qcow2\n";
    for spelling in ["http_proxy", "HTTP_PROXY"] {
        let (address, seen) = proxy();
        let mut command = Command::new("docker");
        command.args(["run", "-i", "--rm", "--network", "host"]);
        command.arg("--volume").arg(format!("{}:/config", volume.path().display()));
        command.args(["--env", "IMAGE_TYPE=qcow", "--env", "VERSION=v2"]);
        command.arg("--env").arg(format!("{spelling}=http://{address}")).arg(&image);
        let output = fed(&mut command, order);
        assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
        let seen = seen.lock().unwrap();
        assert!(seen.iter().any(|line| line.starts_with("GET http://deb.debian.org/debian/dists/")), "{seen:?}");
    }
}

/// A proxy that writes down what it is asked for, and has nothing.
fn proxy() -> (String, std::sync::Arc<std::sync::Mutex<Vec<String>>>) {
    use std::io::{BufRead, BufReader};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let seen: std::sync::Arc<std::sync::Mutex<Vec<String>>> = Default::default();
    let log = seen.clone();
    std::thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            let log = log.clone();
            std::thread::spawn(move || {
                let mut lines = BufReader::new(&connection).lines().map_while(Result::ok);
                log.lock().unwrap().extend(lines.next());
                lines.find(String::is_empty);
                let _ = (&connection).write_all(b"HTTP/1.1 404 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            });
        }
    });
    (address, seen)
}

#[test]
fn upstreams_lines_build() {
    let (Some(image), Some(cache)) = (image(), cache()) else { return };
    let extra = with_cache(&cache);
    let volume = tempfile::tempdir().unwrap();
    let text = |name: &str| std::fs::read_to_string(volume.path().join(name)).unwrap();
    let bytes = |name: &str| std::fs::read(volume.path().join(name)).unwrap();
    // The ISO, from both, is the same.
    worked(&cut_image("iso", volume.path(), &image, "", &extra, &iso_order()));
    let first = bytes("ephemeral.iso");
    assert_eq!(text("ephemeral.iso.md5sum").len(), 33);
    std::fs::remove_file(volume.path().join("ephemeral.iso")).unwrap();
    cloud_init_data(volume.path(), "/config");
    worked(&generic_container("iso", volume.path(), &image, &extra));
    assert!(first == bytes("ephemeral.iso"), "contracts v1 and v2 give different bytes");
    let metadata = text("output-metadata.yaml");
    assert!(metadata.starts_with("bootImagePath: \"/srv/images/ephemeral.iso\"\nmd5sum: "), "{metadata}");
    drop(first);
    // The disk, with all that upstream's script mounts, and with nothing but the volume.
    let order = "osconfig:\n    limits: []\nqcow:\n    qcow_compress: true\noutputFileName: data-plane.qcow2\n";
    worked(&cut_image("qcow", volume.path(), &image, "", &extra, order));
    let first = bytes("data-plane.qcow2");
    assert_eq!(text("data-plane.qcow2.md5sum").len(), 33);
    let mut plain = docker(&extra);
    plain.arg("--volume").arg(format!("{}:/config", volume.path().display()));
    plain.args(["--env", "IMAGE_TYPE=qcow", "--env", "VERSION=v2", &image]);
    worked(&fed(&mut plain, order));
    assert!(first == bytes("data-plane.qcow2"), "privileges change the bytes");
    for name in ["profile_multistrap.json", "profile_entrypoint.json"] {
        let profile: serde_json::Value = serde_json::from_str(&text(name)).unwrap();
        assert_eq!(profile["img_name"], "data-plane.qcow2");
    }
}
