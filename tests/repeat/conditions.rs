//! Under which conditions the image is built, and how they are brought about.
//!
//! Owns: [`cells`], the table of conditions, and [`Bench`], which runs the program under them. Everything happens in
//! namespaces of the child: the machine itself keeps its clock, its name and its accounts.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use imagebuilder::tree::Digest;
use libtest_mimic::Failed;

use super::text;

/// 366 days: over any leap day.
const YEAR: i64 = 366 * 86_400;
/// An account that exists only in the mount namespace of a cell.
const UID: u32 = 54_321;

/// What differs from the reference. The default is the reference itself.
#[derive(Debug, Clone, Default)]
pub struct Conditions {
    /// The folder that holds documents, cache and output, below the work folder.
    pub path: Option<&'static str>,
    pub umask: Option<&'static str>,
    pub environment: Vec<(&'static str, &'static str)>,
    pub one_core: bool,
    /// Seed of the order in which folders are read, on the host and in the sandbox.
    pub folders: Option<u32>,
    /// Seconds that the clock is ahead in the sandbox, and with `locked` for the program, too (indexes would expire).
    pub clock: i64,
    pub host_name: Option<&'static str>,
    /// The process seems to have no memory, so that the work area lies on disk.
    pub on_disk: bool,
    /// An ordinary account with subordinate ids.
    pub ordinary_user: bool,
    /// Another distribution around the program.
    pub root: Option<PathBuf>,
    /// On the cache of the reference.
    pub warm: bool,
    /// From the lock of the reference, without an index; the program then sees the other clock, too.
    pub locked: bool,
    /// One more option of the program.
    pub option: Option<&'static str>,
    /// `SOURCE_DATE_EPOCH`: seconds before the epoch that the reference has found.
    pub epoch: Option<i64>,
}

impl Conditions {
    /// The year that the clock shows.
    pub fn year(&self) -> Result<Option<i64>, Failed> {
        if self.clock == 0 {
            return Ok(None);
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() as i64 + self.clock;
        Ok(Some(jiff::Timestamp::from_second(now)?.to_zoned(jiff::tz::TimeZone::UTC).year().into()))
    }
}

pub struct Cell {
    pub name: String,
    /// Part of the small run.
    pub few: bool,
    pub conditions: Conditions,
}

/// Variables that tools of a build listen to, with values that would show.
const HOSTILE: &[(&str, &str)] = &[
    ("BASH_ENV", "/nonexistent/bash"),
    ("CDPATH", "/usr"),
    ("DEBCONF_FRONTEND", "readline"),
    ("DEBIAN_FRONTEND", "dialog"),
    ("DPKG_ADMINDIR", "/nonexistent/dpkg"),
    ("DPKG_ROOT", "/nonexistent"),
    ("E2FSPROGS_FAKE_TIME", "1"),
    ("EDITOR", "/bin/false"),
    ("ENV", "/nonexistent/sh"),
    ("GZIP_OPT", "-1"),
    ("HOME", "/nonexistent/home"),
    ("LD_BIND_NOW", "1"),
    ("MALLOC_PERTURB_", "165"),
    ("MKE2FS_CONFIG", "/nonexistent/mke2fs.conf"),
    ("PERL5LIB", "/nonexistent/perl"),
    ("PERL_HASH_SEED", "12345"),
    ("PERL_UNICODE", "SDA"),
    ("POSIXLY_CORRECT", "1"),
    ("PYTHONDONTWRITEBYTECODE", "1"),
    ("PYTHONHASHSEED", "77"),
    ("PYTHONPATH", "/nonexistent/python"),
    ("SHELL", "/bin/false"),
    ("TAR_OPTIONS", "--sort=none"),
    ("TMPDIR", "/var/tmp"),
    ("USER", "somebody"),
    ("XZ_OPT", "-0"),
    ("ZSTD_CLEVEL", "19"),
    ("ZSTD_NBTHREADS", "3"),
];
const PLACE: &[(&str, &str)] = &[("TZ", "Asia/Kathmandu"), ("LANG", "tr_TR.UTF-8"), ("LC_ALL", "tr_TR.UTF-8")];

/// Every cell of the matrix.
pub fn cells(roots: &[PathBuf]) -> Vec<Cell> {
    let plain = Conditions::default;
    let threads = |number| vec![("RAYON_NUM_THREADS", number)];
    let mut cells: Vec<Cell> = [
        ("again, cold", plain()),
        ("again, warm", Conditions { warm: true, ..plain() }),
        ("another path", Conditions { path: Some("ein anderer/Ört, tief unten/x"), ..plain() }),
        ("an ordinary user", Conditions { ordinary_user: true, ..plain() }),
        ("umask 077", Conditions { umask: Some("077"), ..plain() }),
        ("time zone and locale", Conditions { environment: PLACE.to_vec(), ..plain() }),
        ("one core, one thread", Conditions { one_core: true, environment: threads("1"), ..plain() }),
        ("sixteen threads", Conditions { environment: threads("16"), ..plain() }),
        ("another order of folders", Conditions { folders: Some(7), ..plain() }),
        ("another host name", Conditions { host_name: Some("elsewhere.example.org"), ..plain() }),
        ("clock a year ahead", Conditions { clock: YEAR, ..plain() }),
        ("from the lock, clock a year ahead", Conditions { locked: true, clock: YEAR, ..plain() }),
        ("SOURCE_DATE_EPOCH as it is", Conditions { warm: true, epoch: Some(0), ..plain() }),
        ("SOURCE_DATE_EPOCH a year earlier", Conditions { warm: true, epoch: Some(YEAR), ..plain() }),
        ("work area on disk", Conditions { on_disk: true, ..plain() }),
        ("without native helpers", Conditions { option: Some("--plain-scripts"), ..plain() }),
        ("hostile environment", Conditions { environment: HOSTILE.to_vec(), ..plain() }),
    ]
    .into_iter()
    .map(|(name, conditions)| Cell { name: name.into(), few: false, conditions })
    .collect();
    for root in roots {
        let name = format!("user land of {}", root.file_name().unwrap_or_default().to_string_lossy());
        cells.push(Cell { name, few: false, conditions: Conditions { root: Some(root.clone()), ..plain() } });
    }
    let everything = Conditions {
        path: Some("ein anderer/Ört, tief unten/y"),
        umask: Some("027"),
        environment: [HOSTILE, PLACE, &[("RAYON_NUM_THREADS", "1")]].concat(),
        one_core: false,
        folders: Some(11),
        clock: YEAR,
        host_name: Some("elsewhere.example.org"),
        on_disk: true,
        ordinary_user: true,
        ..plain()
    };
    cells.push(Cell { name: "everything at once".into(), few: true, conditions: everything });
    cells
}

/// Where one release is built again and again.
pub struct Bench {
    folder: PathBuf,
    release: String,
    program: PathBuf,
    /// `disturb.c`, compiled.
    library: PathBuf,
    reference: Option<Result<PathBuf, String>>,
}

impl Bench {
    pub fn new(folder: &Path, release: &str) -> Self {
        std::fs::create_dir_all(folder).unwrap();
        // An ordinary account must get through.
        for folder in folder.ancestors().take(2) {
            std::fs::set_permissions(folder, PermissionsExt::from_mode(0o755)).unwrap();
        }
        let folder = folder.canonicalize().unwrap();
        let program = std::env::var_os("IMAGEBUILDER_REPEAT_PROGRAM").map(PathBuf::from);
        let program = program.unwrap_or_else(|| env!("CARGO_BIN_EXE_imagebuilder").into()).canonicalize().unwrap();
        // Where every cell can reach it.
        std::fs::copy(program, folder.join("imagebuilder")).unwrap();
        let library = folder.join("disturb.so");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/repeat/disturb.c");
        let mut compiler = Command::new("cc");
        compiler.args(["-O2", "-Wall", "-shared", "-fPIC", "-s", "-o"]).arg(&library).arg(source).arg("-ldl");
        assert!(compiler.status().expect("a C compiler").success(), "compiling {source}");
        let program = folder.join("imagebuilder");
        Bench { folder, release: release.into(), program, library, reference: None }
    }

    /// The folder of the first build, made when it is asked for first.
    pub fn reference(&mut self) -> Result<PathBuf, Failed> {
        if self.reference.is_none() {
            let place = self.folder.join("reference");
            let built = self.make_reference(&place).map(|()| place);
            self.reference = Some(built.map_err(|failed| failed.message().unwrap_or_default().to_owned()));
        }
        Ok(self.reference.clone().expect("made above")?)
    }

    fn make_reference(&self, place: &Path) -> Result<(), Failed> {
        // In the end, by which program.
        let mark = place.join("program");
        let program = Digest::of(&named(&self.program, std::fs::read(&self.program))?).to_hex();
        if std::fs::read_to_string(&mark).is_ok_and(|made_by| made_by == program) {
            println!("  the reference is there");
            return Ok(());
        }
        let cache = std::env::var_os("IMAGEBUILDER_REPEAT_CACHE").map(PathBuf::from);
        self.furnish(place, cache.as_deref(), true)?;
        self.run("reference", place, &Conditions::default())?;
        Ok(std::fs::write(mark, program)?)
    }

    /// Builds under the conditions; gives the folder with `cache` and `out`.
    pub fn build(&mut self, cell: &Cell) -> Result<PathBuf, Failed> {
        let reference = self.reference()?;
        let name: String = cell.name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        let place = self.folder.join(cell.conditions.path.unwrap_or(&name));
        self.furnish(&place, Some(&reference.join("cache")), cell.conditions.warm)?;
        if cell.conditions.locked {
            copy(&reference.join("out").join(LOCK), &place.join("image").join(LOCK))?;
        }
        if cell.conditions.ordinary_user {
            command("chown", &["-R", &format!("{UID}:{UID}"), &text(&place)])?;
        }
        let mut conditions = cell.conditions.clone();
        conditions.epoch = match conditions.epoch {
            None => None,
            Some(before) => Some(epoch_of(&reference)? - before),
        };
        self.run(&cell.name, &place, &conditions)?;
        Ok(place)
    }

    /// Documents and downloads, and finished steps if it is to be warm.
    fn furnish(&self, place: &Path, cache: Option<&Path>, warm: bool) -> Result<(), Failed> {
        let _ = std::fs::remove_dir_all(place);
        std::fs::create_dir_all(place.join("cache"))?;
        copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("functions"), place)?;
        std::fs::create_dir(place.join("image"))?;
        let kustomization = format!(
            "resources: [../functions/images/{}, output.yaml]\n\
             components: [../functions/images/control-plane, size, ../functions/replacements]\n",
            self.release
        );
        std::fs::write(place.join("image/kustomization.yaml"), kustomization)?;
        std::fs::write(place.join("image/output.yaml"), OUTPUT)?;
        std::fs::create_dir(place.join("image/size"))?;
        std::fs::write(place.join("image/size/kustomization.yaml"), SIZE)?;
        let Some(cache) = cache else { return Ok(()) };
        for entry in named(cache, std::fs::read_dir(cache))?.collect::<Result<Vec<_>, _>>()? {
            let name = entry.file_name();
            let download = ["debs", "indexes"].iter().any(|known| name == *known);
            if download || warm && name != "work" {
                copy(&entry.path(), &place.join("cache/"))?;
            }
        }
        Ok(())
    }

    fn run(&self, name: &str, place: &Path, conditions: &Conditions) -> Result<(), Failed> {
        let began = Instant::now();
        let mut command = self.command(place, conditions)?;
        let log = std::fs::File::create(self.folder.join("log"))?;
        let ran = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).status()?;
        let log = std::fs::read_to_string(self.folder.join("log"))?;
        if !ran.success() {
            return Err(format!("the build failed ({ran}) under the conditions {conditions:?}:\n{log}").into());
        }
        println!("  {name}: built in {} s", began.elapsed().as_secs());
        Ok(())
    }

    fn command(&self, place: &Path, conditions: &Conditions) -> Result<Command, Failed> {
        let mut setup = String::from("set -eu\n");
        if let Some(name) = conditions.host_name {
            setup.push_str(&format!("hostname {name}\n"));
        }
        if conditions.on_disk {
            // A control group without memory; a mount on /proc would keep the sandbox from mounting its own.
            setup.push_str("mount -t tmpfs none /sys/fs/cgroup\necho 0 >/sys/fs/cgroup/memory.max\n");
        }
        if let Some(root) = &conditions.root {
            let (root, work) = (text(root), text(&self.folder));
            setup.push_str(&format!(
                "mount --bind '{root}' '{root}'\nmkdir -p '{root}{work}' '{root}/old'\n\
                 mount --rbind '{work}' '{root}{work}'\nmount --rbind /dev '{root}/dev'\n\
                 mount --rbind /sys '{root}/sys'\nmount --rbind /proc '{root}/proc'\n\
                 mount --bind /etc/resolv.conf '{root}/etc/resolv.conf' || cp /etc/resolv.conf '{root}/etc/resolv.conf'\n\
                 cd '{root}'\npivot_root . old\ncd /\numount -l old\n"
            ));
        }
        if conditions.ordinary_user {
            setup.push_str(&self.account()?);
        }
        setup.push_str(&format!("umask {}\ncd '{}'\n", conditions.umask.unwrap_or("022"), text(place)));
        let mut command = Command::new("unshare");
        command.args(["--mount", "--uts", "sh", "-c", &format!("{setup}exec \"$@\""), "sh"]);
        if conditions.ordinary_user {
            let id = UID.to_string();
            command.args(["setpriv", "--reuid", &id, "--regid", &id, "--clear-groups"]);
        }
        if conditions.one_core {
            command.args(["taskset", "--cpu-list", "0"]);
        }
        command.args(["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"]);
        for name in ["http_proxy", "https_proxy", "no_proxy"] {
            command.args(std::env::var(name).ok().map(|value| format!("{name}={value}")));
        }
        command.args(conditions.environment.iter().map(|(name, value)| format!("{name}={value}")));
        command.args(conditions.epoch.map(|epoch| format!("SOURCE_DATE_EPOCH={epoch}")));
        if conditions.folders.is_some() || conditions.clock != 0 {
            command.arg(format!("LD_PRELOAD={}", text(&self.library)));
            command.arg(format!("DISTURB_FOLDERS={}", conditions.folders.unwrap_or(0)));
            command.arg(format!("DISTURB_CLOCK={}", conditions.clock));
            command.arg(format!("DISTURB_CLOCK_HERE={}", if conditions.locked { conditions.clock } else { 0 }));
        }
        command.arg(&self.program).args(["build", "image", "--cache-dir", "cache", "--output-dir", "out"]);
        command.args(["--progress", "plain"]);
        command.args(conditions.locked.then_some("--locked"));
        command.args(conditions.option);
        Ok(command)
    }

    /// Lays account files with one more user over those of the machine.
    fn account(&self) -> Result<String, Failed> {
        let mut setup = String::new();
        for (file, line) in [
            ("passwd", format!("repeat:x:{UID}:{UID}::/nonexistent:/bin/sh\n")),
            ("group", format!("repeat:x:{UID}:\n")),
            ("subuid", "repeat:700000:65536\n".into()),
            ("subgid", "repeat:700000:65536\n".into()),
        ] {
            let original = PathBuf::from("/etc").join(file);
            let copy = self.folder.join(file);
            std::fs::write(&copy, std::fs::read_to_string(&original).unwrap_or_default() + &line)?;
            setup.push_str(&format!(
                "test -e {0} || touch {0}\nmount --bind '{1}' {0}\n",
                text(&original),
                text(&copy)
            ));
        }
        Ok(setup)
    }
}

const LOCK: &str = "control-plane.lock.yaml";
const OUTPUT: &str = "\
apiVersion: airshipit.org/v1alpha1
kind: ImageConfiguration
metadata:
  name: repeat
spec:
  image:
    type: [qcow, raw, vmdk, vhd, tar]
  params:
    tarbuilder: {compression: zstd}
";
const SIZE: &str = "\
apiVersion: kustomize.config.k8s.io/v1alpha1
kind: Component
patches:
  - target: {kind: NodeProfile}
    patch: |-
      - op: add
        path: /spec/storage
        value: {qcow_capacity: 3G}
";

/// The epoch that the lock of a build has.
pub fn epoch_of(place: &Path) -> Result<i64, Failed> {
    let path = place.join("out").join(LOCK);
    let lock = named(&path, std::fs::read_to_string(&path))?;
    let line = lock.lines().find_map(|line| line.trim().strip_prefix("epoch:")).ok_or("the lock has no epoch")?;
    Ok(line.trim().parse()?)
}

/// A copy that shares what it can with the original.
fn copy(from: &Path, to: &Path) -> Result<(), Failed> {
    command("cp", &["-a", "--reflink=auto", &text(from), &text(to)])
}

fn command(program: &str, arguments: &[&str]) -> Result<(), Failed> {
    let ran = named(Path::new(program), Command::new(program).args(arguments).output())?;
    if ran.status.success() {
        return Ok(());
    }
    Err(format!("{program} {arguments:?}: {}", String::from_utf8_lossy(&ran.stderr)).into())
}

/// The error says which file it is about.
fn named<T>(path: &Path, result: std::io::Result<T>) -> Result<T, Failed> {
    result.map_err(|error| format!("{}: {error}", path.display()).into())
}
