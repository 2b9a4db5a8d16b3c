//! Rules on `kernel`: huge pages, CPU lists, sysctls, the command line, modules.

use std::collections::{BTreeMap, BTreeSet};

use super::{Subject, token};
use crate::api::params::kernel::Argument;
use crate::api::scalar::Scalar;
use crate::check::sysctl_path;
use crate::document::{Diagnostic, suggestion};

fn arguments<'a>(subject: &Subject<'a>) -> impl Iterator<Item = (usize, &'a str, &'a str)> {
    let text = |argument: &'a Argument| argument.value.as_ref().map_or("", Scalar::as_str);
    let list = subject.image.spec.params.kernel.command_line.iter().enumerate();
    list.map(move |(index, argument)| (index, argument.name.as_str(), text(argument)))
}

fn at(subject: &Subject, index: usize, field: &str, message: impl Into<String>) -> Diagnostic {
    subject.on(&format!("/kernel/commandLine/{index}/{field}"), message)
}

/// What x86-64 processors have, as the kernel's `memparse` reads it.
fn page_size(text: &str) -> Option<u64> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..split].parse().ok()?;
    let factor = match &text[split..] {
        "" => 1,
        "K" | "k" => 1 << 10,
        "M" | "m" => 1 << 20,
        "G" | "g" => 1 << 30,
        _ => return None,
    };
    number.checked_mul(factor).filter(|size| matches!(size, 0x20_0000 | 0x4000_0000))
}

pub(super) fn huge_pages(subject: &Subject) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let mut waiting: Option<(usize, &str)> = None;
    let mut default_counted = None;
    for (index, name, value) in arguments(subject) {
        match name {
            "hugepagesz" | "default_hugepagesz" if page_size(value).is_none() => {
                let message = format!("`{name}={value}` is no size of huge pages");
                found.push(at(subject, index, "value", message).hint("the processor has `2M` and `1G`"));
                waiting = None;
            }
            "hugepagesz" => {
                if let Some((before, size)) = waiting.replace((index, value)) {
                    found.push(at(
                        subject,
                        before,
                        "value",
                        format!("no `hugepages` counts those of `hugepagesz={size}`"),
                    ));
                }
            }
            "hugepages" => {
                // `0:16,1:16` is per NUMA node.
                let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
                let per_node =
                    |text: &str| text.split_once(':').is_some_and(|(node, count)| number(node) && number(count));
                if !number(value) && !value.split(',').all(per_node) {
                    found.push(at(subject, index, "value", format!("`hugepages={value}` is not a number")));
                }
                if waiting.take().is_none() && default_counted.replace(index).is_some() {
                    let message = "a second `hugepages` without `hugepagesz` before it";
                    found.push(at(subject, index, "name", message).hint("the kernel keeps one number a size"));
                }
            }
            _ => {}
        }
    }
    if let Some((index, size)) = waiting {
        found.push(at(subject, index, "value", format!("no `hugepages` follows `hugepagesz={size}`")));
    }
    found
}

pub(super) fn huge_pages_twice(subject: &Subject) -> Vec<Diagnostic> {
    let Some(sysctl) = subject.image.spec.params.kernel.sysctl.get("vm.nr_hugepages") else { return Vec::new() };
    // Which size a number counts is known for the default size only.
    let sized = arguments(subject).any(|(_, name, _)| name == "hugepagesz");
    let asked = arguments(subject).find(|(_, name, _)| *name == "hugepages").filter(|_| !sized);
    match asked {
        Some((_, _, value)) if value != sysctl.as_str() => {
            let message = format!("sysctl asks for {sysctl} huge pages, the command line for {value}");
            vec![subject.on("/kernel/sysctl/vm.nr_hugepages", message)]
        }
        _ => Vec::new(),
    }
}

/// Arguments whose value is a list of CPUs; `isolcpus` may have words in front.
const CPU_LISTS: [&str; 4] = ["isolcpus", "nohz_full", "rcu_nocbs", "irqaffinity"];

/// More than any kernel is configured for.
const CPUS: u32 = 8192;

/// `0-3,8,16-31:2/4`; `None` if it is no list of known numbers.
fn cpus(text: &str) -> Option<BTreeSet<u32>> {
    let mut found = BTreeSet::new();
    for part in text.split(',') {
        let (range, stride) = part.split_once(':').unwrap_or((part, "1/1"));
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (used, group) = stride.split_once('/')?;
        let number = |text: &str| text.parse::<u32>().ok().filter(|number| *number < CPUS);
        let (first, last, used, group) = (number(first)?, number(last)?, number(used)?, number(group)?);
        if first > last || used == 0 || used > group {
            return None;
        }
        found.extend((first..=last).filter(|cpu| (cpu - first) % group < used));
    }
    Some(found)
}

/// Without the words that `isolcpus` takes in front.
fn list_of<'a>(name: &str, value: &'a str) -> &'a str {
    let mut rest = value;
    while let Some((word, after)) = rest.split_once(',').filter(|_| name == "isolcpus") {
        if !matches!(word, "nohz" | "domain" | "managed_irq") {
            break;
        }
        rest = after;
    }
    rest
}

/// `all`, and lists that end in the number of the last CPU, whatever that is: nothing to compare with.
fn is_open(list: &str) -> bool {
    list == "all" || list.contains('N')
}

pub(super) fn cpu_lists(subject: &Subject) -> Vec<Diagnostic> {
    let wrong = |(index, name, value): (usize, &str, &str)| {
        let list = list_of(name, value);
        // `rcu_nocbs` alone means all of them.
        let fine = is_open(list) || cpus(list).is_some() || name == "rcu_nocbs" && value.is_empty();
        (!fine)
            .then(|| at(subject, index, "value", format!("`{name}={value}` is no list of CPUs")).hint("write `1-3,8`"))
    };
    arguments(subject).filter(|(_, name, _)| CPU_LISTS.contains(name)).filter_map(wrong).collect()
}

pub(super) fn isolated_cpus(subject: &Subject) -> Vec<Diagnostic> {
    let isolated = arguments(subject).filter(|(_, name, _)| matches!(*name, "isolcpus" | "nohz_full"));
    let kubelet = &subject.image.spec.params.kubernetes.kubelet.extra_systemd_args;
    let mut found = Vec::new();
    for (index, name, value) in isolated {
        let Some(own) = cpus(list_of(name, value)) else { continue };
        let both = |text: &str| cpus(text).and_then(|other| own.intersection(&other).next().copied());
        for (_, _, list) in arguments(subject).filter(|(_, name, _)| *name == "irqaffinity") {
            if let Some(cpu) = both(list) {
                found.push(at(subject, index, "value", format!("CPU {cpu} is in `{name}` and in `irqaffinity`")));
            }
        }
        if let Some(cpu) = kubelet.get("reserved-cpus").and_then(|list| both(list.as_str())) {
            let message = format!("CPU {cpu} is reserved for the system and in `{name}` of the kernel's command line");
            found.push(subject.on("/kubernetes/kubelet/extra_systemd_args/reserved-cpus", message));
        }
        if name == "isolcpus" && own.contains(&0) {
            let message = "CPU 0 is isolated: it starts the system and serves its interrupts";
            found.push(at(subject, index, "value", message).hint("begin the list with another CPU"));
        }
    }
    found
}

pub(super) fn sysctl_names(subject: &Subject) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let mut seen: BTreeMap<String, &str> = BTreeMap::new();
    for name in subject.image.spec.params.kernel.sysctl.keys() {
        let complain = |message: String| subject.on(&format!("/kernel/sysctl/{}", token(name)), message);
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-/*@:".contains(c);
        if !name.chars().all(plain) || name.starts_with(['.', '/']) || !name.contains(['.', '/']) {
            found.push(complain(format!("`{name}` is no name of a sysctl")));
            continue;
        }
        if let Some(other) = seen.insert(sysctl_path(name), name) {
            found.push(complain(format!("`{name}` and `{other}` are the same sysctl")));
        }
    }
    found
}

/// Repeated on purpose.
const REPEATED: &[&str] = &["console", "earlycon", "hugepages", "hugepagesz"];

pub(super) fn command_line(subject: &Subject) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let mut seen = BTreeSet::new();
    for (index, name, value) in arguments(subject) {
        let blank = |text: &str| text.contains(|c: char| c.is_whitespace() || c == '"' || c.is_control());
        if name.is_empty() || blank(name) || name.contains('=') {
            let hint = "an argument is one word; its value goes to `value`";
            found.push(at(subject, index, "name", format!("`{name}` is not the name of an argument")).hint(hint));
        } else if blank(value) {
            let message = format!("the value of `{name}` has a blank or a quote in it");
            found.push(at(subject, index, "value", message));
        } else if name == "root" {
            let message = "`root` is set by the builder, which knows the partition";
            found.push(at(subject, index, "name", message));
        } else if !seen.insert((name, value)) && !REPEATED.contains(&name) {
            found.push(at(subject, index, "name", format!("`{name}` is given twice with the same value")));
        }
    }
    found
}

pub(super) fn module_load(subject: &Subject) -> Vec<Diagnostic> {
    let modules = subject.image.spec.params.kernel.modules.iter();
    modules
        .filter(|(_, module)| module.load == Some(true) && module.blacklist)
        .map(|(name, _)| {
            let message = format!("module `{name}` is loaded at boot and blacklisted");
            subject.on(&format!("/kernel/modules/{}", token(name)), message)
        })
        .collect()
}

pub(super) fn kernel_package(subject: &Subject) -> Vec<Diagnostic> {
    let params = &subject.image.spec.params;
    let wanted = params.kernel.modules.values().any(|module| module.load.unwrap_or(!module.blacklist));
    let names: Vec<&str> = super::node::present(subject).collect();
    let has = names
        .iter()
        .any(|name| name.starts_with("linux-image") || *name == "linux-generic" || *name == "linux-virtual");
    if !wanted || has {
        return Vec::new();
    }
    let diagnostic = subject.on("/kernel/modules", "modules are loaded, and no package brings a kernel");
    vec![match suggestion("linux-image-amd64", "packages", &names).filter(|hint| hint.starts_with("did you mean")) {
        Some(hint) => diagnostic.hint(hint),
        None => diagnostic,
    }]
}
