//! The scripts that `make` runs before and around the program: which toolchain they take or install on which
//! distribution, and who owns what a build with sudo leaves. Package managers and sudo are played by small scripts.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

#[path = "../src/testing.rs"]
mod testing;

use testing::executable;

/// A folder with a copy of the scripts, wanting a Rust that no machine has, and programs that are found first.
struct Stage {
    dir: tempfile::TempDir,
}

impl Stage {
    fn new() -> Self {
        // A space in the path, as a clone may have one.
        let stage = Stage { dir: tempfile::Builder::new().prefix("with space ").tempdir().unwrap() };
        for folder in ["tools", "bin", "home"] {
            std::fs::create_dir(stage.path(folder)).unwrap();
        }
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        for script in ["as-builder", "rust-path", "setup", "test"] {
            let text = std::fs::read(root.join("tools").join(script)).unwrap();
            executable(&stage.path("tools").join(script), text);
        }
        std::fs::write(stage.path("Cargo.toml"), "rust-version = \"9.5\"\n").unwrap();
        stage.program("sudo", "while [ \"$1\" = -E ]; do shift; done\necho \"$@\" >>sudo.log\nexec \"$@\"\n");
        stage
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    fn program(&self, name: &str, script: &str) {
        executable(&self.path("bin").join(name), format!("#!/bin/sh\n{script}"));
    }

    /// An archive that offers these packages, and an apt-get that "installs" a fitting rustc and cargo.
    fn archive(&self, offers: &[(&str, &str)]) {
        let names: String = offers.iter().map(|(name, _)| format!("{name}\\n")).collect();
        let policies: String =
            offers.iter().map(|(name, version)| format!("{name}) echo \"  Candidate: {version}\" ;;\n")).collect();
        self.program(
            "apt-cache",
            &format!("case $1 in\npkgnames) printf '{names}' ;;\npolicy) case $2 in\n{policies}esac ;;\nesac\n"),
        );
        self.program(
            "apt-get",
            "echo \"$@\" >>apt.log\nbin=$(dirname \"$0\")\ncase \"$*\" in *' 'rustc*)\n\
             printf '#!/bin/sh\\necho rustc 9.6.1\\n' >\"$bin/rustc\"; cp \"$bin/rustc\" \"$bin/cargo\"\n\
             chmod +x \"$bin/rustc\" \"$bin/cargo\" ;;\nesac\n",
        );
    }

    fn run(&self, script: &str, arguments: &[&str]) -> Output {
        self.run_on(&std::env::var("PATH").unwrap(), script, arguments)
    }

    fn run_on(&self, path: &str, script: &str, arguments: &[&str]) -> Output {
        let path = format!("{}:{path}", self.path("bin").display());
        let mut command = Command::new(self.path("tools").join(script));
        command.args(arguments).current_dir(self.dir.path()).env("PATH", path).env("HOME", self.path("home"));
        command.env_remove("IMAGEBUILDER_CACHE_DIR").env_remove("XDG_CACHE_HOME");
        command.output().unwrap()
    }

    /// What apt-get was asked to install last.
    fn installed(&self) -> String {
        let log = self.read("apt.log");
        let line = log.lines().rfind(|line| line.contains(" rust")).unwrap_or("");
        let words = line.split(' ').filter(|word| word.starts_with("rust") || word.starts_with("cargo"));
        words.collect::<Vec<_>>().join(" ")
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A package's name and the version on offer.
type Offer = (&'static str, &'static str);

#[test]
fn each_distribution_gives_its_own_toolchain() {
    let cases: [(&str, &[Offer], &str); 4] = [
        (
            "Debian 12",
            &[("rustc", "9.1.0+dfsg1-2"), ("cargo", "9.1"), ("rustc-web", "9.6.0~deb12u1"), ("cargo-web", "9.6.0")],
            "rustc-web cargo-web",
        ),
        ("Debian 13", &[("rustc", "9.5.0+dfsg3-1"), ("cargo", "9.5.0+dfsg3-1")], "rustc cargo"),
        (
            "Ubuntu, whose newest compiler has no cargo yet",
            &[
                ("rustc", "9.1"),
                ("cargo", "9.1"),
                ("rustc-1.9", "9.5"),
                ("cargo-1.9", "9.5"),
                ("rustc-1.80", "9.6"),
                ("cargo-1.80", "9.6"),
                ("rustc-1.91", "9.7"),
                ("rustc-1.91-doc", "9.7"),
            ],
            "rustc-1.80 cargo-1.80",
        ),
        ("only old ones", &[("rustc", "9.1"), ("cargo", "9.1"), ("rustc-1.9", "9.4.9"), ("cargo-1.9", "9.4.9")], ""),
    ];
    for (name, offers, expected) in cases {
        let stage = Stage::new();
        stage.archive(offers);
        let output = stage.run("setup", &["build"]);
        assert_eq!(stage.installed(), expected, "{name}: {}", stderr(&output));
        assert_eq!(output.status.success(), !expected.is_empty(), "{name}");
        if expected.is_empty() {
            assert!(stderr(&output).contains("Rust 9.5 or newer is needed"), "{name}: {}", stderr(&output));
            assert!(stderr(&output).contains("https://sh.rustup.rs"), "{name}: {}", stderr(&output));
        }
    }
}

#[test]
fn rustup_is_taken_where_the_archive_has_it_and_nothing_newer() {
    let stage = Stage::new();
    stage.archive(&[("rustc", "9.1"), ("cargo", "9.1"), ("rustup", "1.26")]);
    stage.program(
        "rustup",
        "mkdir -p \"$HOME/.cargo/bin\"\nprintf '#!/bin/sh\\necho rustc 9.9.0\\n' >\"$HOME/.cargo/bin/rustc\"\n\
         cp \"$HOME/.cargo/bin/rustc\" \"$HOME/.cargo/bin/cargo\"\nchmod +x \"$HOME/.cargo/bin/\"*\n",
    );
    let output = stage.run("setup", &["build"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(stage.installed(), "rustup");
    let found = String::from_utf8(stage.run("rust-path", &[]).stdout).unwrap();
    assert_eq!(Path::new(found.trim_end()), stage.path("home/.cargo/bin"));
}

#[test]
fn linters_come_from_the_package_beside_the_compiler() {
    for (package, expected) in [
        ("rustc-web", "rust-web-clippy rustfmt-web"),
        ("rustc", "rust-clippy rustfmt"),
        ("rustc-1.97", "rust-1.97-clippy rustfmt-1.97"),
    ] {
        let stage = Stage::new();
        stage.archive(&[]);
        stage.program("rustc", "echo rustc 9.9.0\n");
        stage.program("cargo", "exit 1\n");
        stage.program("dpkg", &format!("echo \"{package}: $2\"\n"));
        // A rustup of this machine would be asked instead.
        let output = stage.run_on("/usr/bin:/bin", "setup", &["lint"]);
        assert!(output.status.success(), "{}", stderr(&output));
        assert_eq!(stage.installed(), expected);
    }
}

#[test]
fn an_old_compiler_that_comes_first_is_passed_over() {
    let stage = Stage::new();
    for (folder, version) in [("bin", "9.4.9"), ("home/.cargo/bin", "9.10.0")] {
        std::fs::create_dir_all(stage.path(folder)).unwrap();
        for program in ["rustc", "cargo"] {
            executable(&stage.path(folder).join(program), format!("#!/bin/sh\necho {program} {version}\n"));
        }
    }
    let found = String::from_utf8(stage.run("rust-path", &[]).stdout).unwrap();
    assert_eq!(Path::new(found.trim_end()), stage.path("home/.cargo/bin"));
}

#[test]
fn what_was_not_tested_is_said_at_the_end_and_a_failure_stays_one() {
    for (code, success) in [(0, true), (101, false)] {
        let stage = Stage::new();
        stage.program("rustc", "echo rustc 9.9.0\n");
        stage.program(
            "cargo",
            &format!("echo \"$@\"\necho 'skipped: needs root'\necho 'skipped: needs root'\nexit {code}\n"),
        );
        let output = stage.run("test", &["--test", "one"]);
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.success(), success);
        assert!(text.starts_with("test --locked --test one -- --show-output\n"), "{text}");
        let last = text.lines().last().unwrap();
        assert_eq!(last.split_whitespace().collect::<Vec<_>>(), ["2", "needs", "root"], "{text}");
    }
}

#[test]
fn without_user_namespaces_the_build_runs_by_sudo_and_its_output_is_the_callers() {
    let stage = Stage::new();
    // As real root a foreign id stands for the caller, so that the change of owner can be seen.
    let me = std::fs::metadata(stage.dir.path()).unwrap().uid();
    let caller = if me == 0 { 12_345 } else { me };
    stage.program("id", &format!("case $1 in -un) echo nobody-here ;; *) echo {caller} ;; esac\n"));
    stage.program("unshare", "exit 1\n");
    std::fs::create_dir(stage.path("my out")).unwrap();
    std::fs::write(stage.path("my out/old"), "of somebody else").unwrap();
    // The change times of files made at once may be equal to that of the mark.
    let builder = "sleep 0.05; echo 1 >'my out/new'; echo 2 >\"$IMAGEBUILDER_CACHE_DIR/entry\"; exit 7";
    std::thread::sleep(std::time::Duration::from_millis(50));
    let output = stage.run("as-builder", &["my out", "sh", "-c", builder, "--", "--cache-dir", "a cache"]);
    assert_eq!(output.status.code(), Some(7), "the build's own exit code: {}", stderr(&output));
    assert!(stderr(&output).contains("building with sudo"), "{}", stderr(&output));
    assert!(
        stage.read("sudo.log").starts_with("env IMAGEBUILDER_CACHE_DIR=a cache sh -c"),
        "{}",
        stage.read("sudo.log")
    );
    let owner = |name: &str| std::fs::metadata(stage.path(name)).unwrap().uid();
    assert_eq!(owner("a cache/entry"), caller);
    assert_eq!(owner("my out/new"), caller);
    assert_eq!(owner("my out/old"), me, "what was there before keeps its owner");
}

#[test]
fn a_newer_qemu_utils_does_not_keep_qemu_away() {
    for (accepted, expected) in [
        ("*' qemu-system-x86 '*", "--no-install-recommends qemu-system-x86 "),
        ("*' -t '*", "-backports qemu-system-x86 "),
        ("*' --allow-downgrades '*", "--allow-downgrades qemu-utils=1:7.2+dfsg-7 qemu-system-x86 "),
    ] {
        let stage = Stage::new();
        // Everything but QEMU is there, with a fitting compiler.
        for program in
            ["sh", "sed", "sort", "head", "dirname", "id", "env", "python3", "tr", "cut", "grep", "cat", "readlink"]
        {
            let found = ["/usr/bin", "/bin"].map(|folder| Path::new(folder).join(program));
            let found = found.iter().find(|path| path.exists()).unwrap();
            std::os::unix::fs::symlink(found, stage.path("bin").join(program)).unwrap();
        }
        let tools = [
            "cc",
            "make",
            "newuidmap",
            "qemu-img",
            "sgdisk",
            "mdir",
            "fsck.fat",
            "e2fsck",
            "zstd",
            "xorriso",
            "isoinfo",
        ];
        for tool in tools.into_iter().chain(["unsquashfs"]) {
            stage.program(tool, "");
        }
        for tool in ["rustc", "cargo"] {
            stage.program(tool, &format!("echo {tool} 9.9.0\n"));
        }
        stage.program("apt-cache", "[ \"$1 $2\" != 'policy qemu-system-x86' ] || echo '  Candidate: 1:7.2+dfsg-7'\n");
        stage.program(
            "apt-get",
            &format!(
                "case \" $* \" in *' -s '*) case \" $* \" in {accepted}) exit 0 ;; esac; exit 100 ;; esac\n\
                 echo \"$@ \" >>apt.log\n"
            ),
        );
        let mut command = Command::new("/bin/sh");
        command.args(["tools/setup", "test"]).current_dir(stage.dir.path()).env("PATH", stage.path("bin"));
        let output = command.env("HOME", stage.path("home")).output().unwrap();
        assert!(output.status.success(), "{accepted}: {}", stderr(&output));
        let log = stage.read("apt.log");
        assert!(log.contains(expected), "{accepted}: {log} {}", stderr(&output));
    }
}
