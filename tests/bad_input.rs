//! What users get wrong and what goes wrong around them, against the real program: the exit code of the design, the
//! place (`file:line` or address), what was expected, what helps; and nothing half-written in the output folder.
//!
//! Documents need neither network nor privileges. Mirrors are served here; a build reaches them after it has entered
//! its user namespace, and where the machine refuses one, these tests say so and end.

#[path = "support/outcome.rs"]
mod outcome;
mod support;

use std::io::Read;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use imagebuilder::package::http::Patience;
use outcome::Outcome;
use support::mirror::{Archive, Fault, IN_RELEASE, INDEX, Mirror, Suite, TOOL, now};

/// A folder with the shipped functions, a place for documents, a cache and an output folder.
struct Desk {
    folder: tempfile::TempDir,
}

impl Desk {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR"));
        for name in ["functions", "config"] {
            copy(&source.join(name), &folder.path().join(name));
        }
        Desk { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_imagebuilder"));
        command.args(arguments).args(["--cache-dir", "cache", "--output-dir", "out", "--progress", "quiet"]);
        command.current_dir(self.folder.path()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.env_remove("RUST_LOG").env("NO_COLOR", "1").env("no_proxy", "*");
        command
    }

    fn run(&self, arguments: &[&str]) -> Outcome {
        Outcome::of(self.command(arguments).output().unwrap())
    }

    /// Builds the control-plane image with a patch on its NodeProfile, `spec` being what stands below `spec:`, from
    /// line 6 of `site/patch.yaml` on.
    fn build_patched(&self, spec: &str) -> Outcome {
        let head = "apiVersion: airshipit.org/v1alpha1\nkind: NodeProfile\nmetadata:\n  name: control-plane\nspec:\n";
        self.write("site/patch/patch.yaml", &format!("{head}{spec}"));
        self.write(
            "site/patch/kustomization.yaml",
            "apiVersion: kustomize.config.k8s.io/v1alpha1\nkind: Component\npatches:\n  - path: patch.yaml\n",
        );
        self.write(
            "site/kustomization.yaml",
            "resources: [../functions/images/debian-bookworm]\ncomponents:\n  - ../functions/images/control-plane\n  \
             - patch\n  - ../functions/replacements\n",
        );
        self.run(&["build", "site"])
    }

    /// Documents of an image with one package (line 8) and one repository (address in line 14, suite in line 15).
    fn write_small(&self, package: &str, mirror: &str, keyring: &str) {
        let keyring: String = keyring.lines().map(|line| format!("\n            {line}")).collect();
        self.write("small/kustomization.yaml", "resources: [image.yaml]\n");
        self.write(
            "small/image.yaml",
            &format!(
                "apiVersion: airshipit.org/v1alpha1
kind: AirshipImage
metadata: {{name: small}}
spec:
  params:
    software:
      packages:
        {package}: {{}}
    distribution:
      name: debian
      release: bookworm
      repositories:
        test:
          source: {mirror}
          suite: stable
          components: {{main: {{}}}}
          keyring: |{keyring}
"
            ),
        );
    }

    fn build_small(&self, package: &str, mirror: &str, keyring: &str) -> Outcome {
        self.write_small(package, mirror, keyring);
        self.run(&["build", "small"])
    }

    /// Nothing may be left in the output folder, hidden or not.
    fn assert_clean(&self) {
        let left: Vec<_> = std::fs::read_dir(self.path("out")).into_iter().flatten().flatten().collect();
        assert!(left.is_empty(), "left in the output folder: {left:?}");
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(std::fs::copy(entry.path(), target).unwrap()),
        }
    }
}

/// Patches, the exit code, and what the program has to say.
const DOCUMENTS: &[(&str, &[&str])] = &[
    ("  distribution:\n    release: bookwrm\n", &["site/patch/patch.yaml:7:14", "bookwrm", "did you mean `bookworm`?"]),
    ("  distribution:\n    architecture: amd65\n", &["patch.yaml:7:19", "amd65", "known architectures: `amd64`"]),
    ("  storage:\n    qcow_capacty: 1G\n", &["patch.yaml:7:5", "did you mean `qcow_capacity`?"]),
    ("  storage:\n    qcow_capacity: lots\n", &["patch.yaml:7:20", "lots"]),
    ("  storage:\n    qcow_capacity: [1G\n", &["patch.yaml:7:20", "unclosed bracket"]),
    (
        "  storage:\n    qcow_capacity: 1G\n    qcow_capacity: 2G\n",
        &["patch.yaml:8:5", "patch.yaml:7:5", "first given"],
    ),
    ("  storage:\n    qcow_capacity: 1G\n", &["partition-extent", "the disk has 1073741824"]),
    (
        "  storage:\n    partitions:\n      - {mount: /, part_start: 1MiB, part_end: 2GiB, filesystem: {type: ext4}}\n      \
         - {mount: /var, part_start: 1GiB, part_end: 3GiB, filesystem: {type: ext4}}\n",
        &["patch.yaml:9:", "partition 1 ends here", "partition-overlap"],
    ),
    (
        "  storage:\n    partitions:\n      - {mount: /, part_start: 1MiB, part_end: 1GiB, filesystem: {type: ext4}}\n      \
         - {mount: /, part_start: 1GiB, part_end: 3GiB, filesystem: {type: ext4}}\n",
        &["patch.yaml:9:", "the first one", "mount-once"],
    ),
    (
        "  storage:\n    partitions:\n      - {mount: /var, part_start: 1MiB, part_end: 1GiB, filesystem: {type: ext4}}\n",
        &["give one `mount: /`", "root-present", "patch.yaml:8:"],
    ),
];

#[test]
fn an_epoch_that_is_no_number() {
    let desk = Desk::new();
    for epoch in ["yesterday", "-1", "4294967296"] {
        let mut command = desk.command(&["build", "--config", "config"]);
        let outcome = Outcome::of(command.env("SOURCE_DATE_EPOCH", epoch).output().unwrap());
        outcome.expect(2, &[&format!("SOURCE_DATE_EPOCH is `{epoch}`"), "whole seconds since 1970-01-01"]);
    }
    desk.assert_clean();
}

#[test]
fn documents_are_refused_with_their_place() {
    let desk = Desk::new();
    for (spec, words) in DOCUMENTS {
        desk.build_patched(spec).expect(3, words);
        desk.assert_clean();
    }
}

#[test]
fn names_on_the_command_line_are_suggested() {
    let desk = Desk::new();
    let unknown = desk.run(&["build", "--config", "config", "--distro", "debian_bookwrom"]);
    unknown.expect(2, &["unknown distribution `debian_bookwrom`", "did you mean `debian_bookworm`?", "ubuntu_noble"]);
    let unknown = desk.run(&["build", "--config", "config", "--bundle", "control-plan"]);
    unknown.expect(2, &["no image is called `control-plan`", "did you mean `control-plane`?"]);
    desk.run(&["build", "--config", "confg"]).expect(2, &["there is no folder confg/qcow-bundle", "hint: "]);
    desk.assert_clean();
}

/// A mirror and a desk; the first build tells whether this machine can do any.
struct Shop {
    desk: Desk,
    archive: Archive,
    mirror: Mirror,
}

impl Shop {
    fn new(suite: &Suite) -> Self {
        let archive = Archive::new();
        let mirror = Mirror::start(suite.files(&archive));
        Shop { desk: Desk::new(), archive, mirror }
    }

    fn build(&self, package: &str) -> Outcome {
        let outcome = self.desk.build_small(package, &self.mirror.url(), &self.archive.public);
        self.desk.assert_clean();
        outcome
    }
}

/// Builds against a mirror; ends the test where the machine cannot build.
macro_rules! build {
    ($outcome:expr) => {{
        let outcome = $outcome;
        if outcome.is_skipped() {
            return;
        }
        outcome
    }};
}

#[test]
fn packages_that_cannot_be_had() {
    let shop = Shop::new(&Suite::default());
    let unknown = build!(shop.build("tol"));
    unknown
        .expect(3, &["small/image.yaml:8:9", "package `tol` is in none of the repositories", "similar names: `tool`"]);
    let broken = shop.build("broken");
    broken.expect(
        3,
        &["small/image.yaml:8:9", "package `broken` cannot be installed", "absent (>= 2)", "no repository has it"],
    );
}

#[test]
fn a_mirror_that_is_not_there_or_lacks_the_suite() {
    let shop = Shop::new(&Suite::default());
    let nobody = build!(shop.desk.build_small("tool", "http://127.0.0.1:9/debian", &shop.archive.public));
    let address = "http://127.0.0.1:9/debian/dists/stable/InRelease cannot be reached";
    nobody.expect(5, &["small/image.yaml:14:19", address, "after 4 attempts", "http_proxy"]);
    shop.mirror.fault(IN_RELEASE, &[Fault::Status(404)]);
    shop.build("tool").expect(5, &["small/image.yaml:15:18", IN_RELEASE, "is not there (status 404)", "`suite`"]);
    shop.desk.assert_clean();
}

#[test]
fn what_is_not_authentic_is_refused() {
    let shop = Shop::new(&Suite::default());
    let strange = build!(shop.desk.build_small("tool", &shop.mirror.url(), &Archive::new().public));
    strange.expect(4, &["small/image.yaml:18:", &shop.mirror.url(), "the signature is not good", "hint: `keyring`"]);
    shop.mirror.fault(INDEX, &[Fault::Instead(b"not it".to_vec())]);
    shop.build("tool").expect(4, &[INDEX, "the mirror delivered a wrong file", "hint: "]);
    let mut wrong = support::mirror::deb(TOOL, 1_700_000_000);
    wrong[100_000] ^= 1;
    shop.mirror.fault(TOOL, &[Fault::Instead(wrong)]);
    shop.build("tool").expect(4, &["package tool", TOOL, "its SHA-256 digest is", "signed is"]);
    let expired = Shop::new(&Suite { valid_until: Some(now() - 60), ..Suite::default() });
    expired.build("tool").expect(4, &["small/image.yaml:14:19", "the index has expired", "hint: "]);
}

#[test]
fn several_images_of_one_run() {
    let shop = Shop::new(&Suite::default());
    shop.mirror.fault(TOOL, &[Fault::Status(404), Fault::Status(404), Fault::Status(404)]);
    build!(shop.build("tool")).expect(5, &["building image `small`", TOOL]);
    let documents = std::fs::read_to_string(shop.desk.path("small/image.yaml")).unwrap();
    shop.desk.write("other/kustomization.yaml", "resources: [image.yaml]\n");
    shop.desk.write("other/image.yaml", &documents);
    shop.desk
        .run(&["build", "small", "other"])
        .expect(3, &["two images of one run are called `small`", "hint: name them differently"]);
    shop.desk.write("other/image.yaml", &documents.replace("{name: small}", "{name: other}"));
    // Each is tried, each says what was wrong.
    shop.desk
        .run(&["build", "small", "other"])
        .expect(5, &["building image `small`", "building image `other`", TOOL, "hint: 0 of 2 images were built"]);
    shop.desk.assert_clean();
}

#[test]
fn ctrl_c_and_termination_end_a_build() {
    for signal in [rustix::process::Signal::INT, rustix::process::Signal::TERM] {
        let shop = Shop::new(&Suite::default());
        build!(shop.build("tol"));
        // The download hangs; the signal comes in the middle of it.
        shop.mirror.fault(IN_RELEASE, &vec![Fault::Status(503); 9]);
        let child = shop.desk.command(&["build", "small"]).spawn().unwrap();
        shop.mirror.taken(IN_RELEASE);
        while shop.mirror.taken(IN_RELEASE).is_empty() {
            std::thread::sleep(Duration::from_millis(10));
        }
        rustix::process::kill_process(rustix::process::Pid::from_child(&child), signal).unwrap();
        Outcome::of(child.wait_with_output().unwrap()).expect(130, &["interrupted"]);
        shop.desk.assert_clean();
    }
}

#[test]
fn ctrl_c_is_heard_while_a_mirror_is_silent() {
    let shop = Shop::new(&Suite::default());
    build!(shop.build("tol"));
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}/debian", silent.local_addr().unwrap());
    shop.desk.write_small("tool", &address, &shop.archive.public);
    let child = shop.desk.command(&["build", "small"]).spawn().unwrap();
    let (mut connection, _) = silent.accept().unwrap();
    // The request is there, so it waits for the answer.
    assert!(connection.read(&mut [0; 4096]).unwrap() > 0);
    let asked = Instant::now();
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::INT).unwrap();
    Outcome::of(child.wait_with_output().unwrap()).expect(130, &["interrupted"]);
    assert!(asked.elapsed() < Patience::default().timeout / 2, "it heard it when it stopped waiting for the mirror");
    shop.desk.assert_clean();
}

#[test]
fn a_machine_without_qemu_is_told_which_package() {
    let desk = Desk::new();
    std::fs::File::create(desk.path("disk.img")).unwrap().set_len(1 << 20).unwrap();
    let mut command = desk.command(&["boot", "disk.img"]);
    let outcome = Outcome::of(command.env("PATH", desk.path("nothing")).output().unwrap());
    outcome.expect(1, &["`qemu-img` is not installed", "hint: ", "qemu"]);
}
