//! What every image of ours must show once it has booted with a seed.
//!
//! Owns: the checks as records. Each is a shell command that says what is wrong and fails, or says what it found.

use std::time::Duration;

use super::Seed;
use super::console::Console;
use crate::error::Result;

/// Emulated machines take minutes to finish their boot.
const SETTLE: Duration = Duration::from_secs(900);
const QUICK: Duration = Duration::from_secs(120);

struct Check {
    name: &'static str,
    command: &'static str,
    timeout: Duration,
    on: On,
}

/// What a check is made on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum On {
    All,
    Installed,
    Live,
}

const CHECKS: [Check; 8] = [
    Check { name: "cloud-init is done", command: "cloud-init status --wait --long", timeout: SETTLE, on: On::All },
    Check {
        name: "no failed units",
        command: "systemctl is-system-running --wait; failed=$(systemctl --failed --plain --no-legend); echo \"$failed\"; \
                  test -z \"$failed\"",
        timeout: SETTLE,
        on: On::All,
    },
    // Only a seed has this name, so a machine that has it has read the seed.
    Check {
        name: "host name from the seed",
        command: "test \"$(hostname)\" = \"$seed_hostname\" && hostname",
        timeout: QUICK,
        on: On::All,
    },
    Check {
        name: "/etc/imagebuilder/meta",
        command: "test -s /etc/imagebuilder/meta && wc -c /etc/imagebuilder/meta",
        timeout: QUICK,
        on: On::All,
    },
    // The partition ends within 16 MiB (32768 sectors) of the end of the disk, and the file system fills the partition
    // but for its own tables.
    Check {
        name: "root grown",
        command: "part=$(basename $(readlink -f $(findmnt -no SOURCE /))); disk=$(basename $(dirname $(readlink -f \
                  /sys/class/block/$part))); s=$(cat /sys/class/block/$part/start); n=$(cat /sys/class/block/$part/size); \
                  d=$(cat /sys/class/block/$disk/size); f=$(df -B512 --output=size / | tail -n 1); \
                  echo $disk $d, $part $s+$n, file system $f sectors; \
                  test $((d - s - n)) -lt 32768 && test $((f * 100)) -gt $((n * 90))",
        timeout: QUICK,
        on: On::Installed,
    },
    // Nothing of the medium is written to, and what is there to read is the squashfs on it.
    Check {
        name: "root in memory over a squashfs",
        command: "findmnt -no FSTYPE / && findmnt -no SOURCE,FSTYPE -t squashfs | head -n 1; \
                  test \"$(findmnt -no FSTYPE /)\" = overlay",
        timeout: QUICK,
        on: On::Live,
    },
    Check {
        name: "the medium is the config drive",
        command: "cat /run/cloud-init/result.json; grep -q ConfigDrive /run/cloud-init/result.json",
        timeout: QUICK,
        on: On::Live,
    },
    Check {
        name: "no password on root",
        command: "passwd -S root; test \"$(passwd -S root | cut -d' ' -f2)\" = L",
        timeout: QUICK,
        on: On::All,
    },
];

/// How one check or command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    pub name: String,
    pub passed: bool,
    pub output: String,
}

/// Runs the checks and then the commands, on a console that is logged in. `live`: the system runs from a medium. `tell`
/// hears of each as it ends.
pub fn run(
    console: &mut Console,
    seed: &Seed,
    live: bool,
    commands: &[String],
    tell: &mut dyn FnMut(&Outcome),
) -> Result<Vec<Outcome>> {
    // The name was checked by `Seed::check`: no quotes in it.
    console.run(":", QUICK)?;
    console.send_line(&format!("seed_hostname='{}'; export seed_hostname", seed.hostname))?;
    let other = if live { On::Installed } else { On::Live };
    let shipped = CHECKS.iter().filter(|check| check.on != other);
    let shipped = shipped.map(|check| (check.name, check.command, check.timeout));
    let given = commands.iter().map(|command| (command.as_str(), command.as_str(), SETTLE));
    let mut outcomes = Vec::new();
    for (name, command, timeout) in shipped.chain(given) {
        let result = console.run(command, timeout)?;
        let outcome = Outcome { name: name.to_owned(), passed: result.status == 0, output: result.output };
        tell(&outcome);
        outcomes.push(outcome);
    }
    Ok(outcomes)
}
