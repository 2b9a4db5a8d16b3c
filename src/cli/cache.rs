//! `cache`: what earlier runs left, how to make it smaller, whether it is sound.
//!
//! Owns: the arguments and what is printed; [`Size`](crate::api::scalar::Size) and ages as they are typed.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;

use super::Globals;
use super::output::{self, Format};
use crate::api::scalar::Size;
use crate::build::cache::{self, Area, Item, Limits};
use crate::error::{Error, Kind, Result};
use crate::report::words;

/// Show, shrink or check what earlier runs have left for the next ones
///
/// The cache holds downloaded packages and indexes, finished steps of builds (layers, initramfs), and compressed clusters
/// of disks. Everything in it can be had again; without it a build takes longer and gives the same bytes. A build keeps
/// it below a size by itself (`--cache-size`), what was not used for longest goes first.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  imagebuilder cache ls
  imagebuilder cache prune --keep 5G
  imagebuilder cache prune --older-than 30d
  imagebuilder cache verify")]
pub struct Args {
    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    Ls(LsArgs),
    Prune(PruneArgs),
    Verify(VerifyArgs),
}

/// List what the cache holds: sizes, ages, and what refers to what
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  imagebuilder cache ls                 one line a kind
  imagebuilder cache ls --all           one line an item, with what it refers to
  imagebuilder cache ls --all -o json | jq '.[] | select(.area == \"steps\")'")]
pub struct LsArgs {
    /// Every item by itself
    #[arg(short, long)]
    pub all: bool,
    /// How the list is printed
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: Format,
}

/// Remove what is of no use any more, and as much of the rest as asked for
///
/// Without options only what no build will use again goes: what was set aside as damaged, and stores of other versions of
/// the program. What was not used for longest goes first. While a build uses the cache, this waits for its end.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  imagebuilder cache prune
  imagebuilder cache prune --keep 5G --dry-run
  imagebuilder cache prune --keep 0     an empty cache
  imagebuilder cache prune --older-than 30d")]
pub struct PruneArgs {
    /// How much may stay, such as `5G` or `500MiB`
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub keep: Option<u64>,
    /// Remove what was not used for this long: a number and `m`, `h`, `d` or `w`
    #[arg(long, value_name = "AGE", value_parser = age)]
    pub older_than: Option<i64>,
    /// Only say what would be removed
    #[arg(long)]
    pub dry_run: bool,
}

/// Read everything in the cache and compare it with its digests
///
/// What is damaged is set aside, so that the next build gets or makes it again; the exit code is 8 then.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  imagebuilder cache verify && imagebuilder build --config config")]
pub struct VerifyArgs {}

/// A size as it is typed.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let parsed = if text.trim() == "0" { Some(Size(0)) } else { Size::parse(text) };
    parsed.map(|size| size.0).ok_or_else(|| "not a size: something like `20G` or `500MiB`".into())
}

/// Seconds.
fn age(text: &str) -> Result<i64, String> {
    let wrong = || "not an age: a number and `m`, `h`, `d` or `w`, such as `30d`".to_owned();
    let unit = text.chars().last().ok_or_else(wrong)?;
    let seconds = match unit {
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        'w' => 7 * 86_400,
        _ => return Err(wrong()),
    };
    let count: u32 = text[..text.len() - 1].parse().map_err(|_| wrong())?;
    Ok(i64::from(count) * seconds)
}

pub fn run(args: &Args, globals: &Globals) -> Result<()> {
    let cache = globals.cache_dir()?;
    match &args.verb {
        Verb::Ls(args) => ls(&cache::list(&cache)?, args, &cache.display().to_string()),
        Verb::Prune(args) => prune(args, globals),
        Verb::Verify(_) => verify(globals),
    }
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// `3 days`, roughly.
fn ago(used: i64) -> String {
    let seconds = now().saturating_sub(used).max(0);
    let (count, unit) = match seconds {
        0..60 => return "now".into(),
        60..3600 => (seconds / 60, "min"),
        3600..86_400 => (seconds / 3600, "h"),
        _ => (seconds / 86_400, "days"),
    };
    format!("{count} {unit} ago")
}

fn ls(items: &[Item], args: &LsArgs, place: &str) -> Result<()> {
    if args.all {
        let cells = |item: &Item| {
            let used = if item.area == Area::Contents { users(items, item) } else { item.needs.join(" ") };
            vec![item.area.name().into(), words::bytes(item.size), ago(item.used), item.name.clone(), used]
        };
        let object = |item: &Item| {
            json!({"area": item.area.name(), "name": item.name, "size": item.size, "used": item.used,
                   "needs": item.needs})
        };
        return output::rows(args.output, &["AREA", "SIZE", "USED", "NAME", "REFERS TO"], items, cells, object);
    }
    let areas: Vec<(Area, Vec<&Item>)> =
        Area::ALL.map(|area| (area, items.iter().filter(|item| item.area == area).collect())).into();
    let total = |items: &[&Item]| items.iter().map(|item| item.size).sum::<u64>();
    let cells = |(area, items): &(Area, Vec<&Item>)| {
        let used = items.iter().map(|item| item.used).max().map(ago).unwrap_or_default();
        vec![area.name().into(), items.len().to_string(), words::bytes(total(items)), used, area.description().into()]
    };
    let object = |(area, items): &(Area, Vec<&Item>)| {
        json!({"area": area.name(), "count": items.len(), "size": total(items),
               "used": items.iter().map(|item| item.used).max()})
    };
    output::rows(args.output, &["AREA", "ITEMS", "SIZE", "USED", "WHAT"], &areas, cells, object)?;
    if args.output == Format::Table {
        let all = words::bytes(items.iter().map(|item| item.size).sum());
        output::print(&format!("\n{all} in {place}\n"))?;
    }
    Ok(())
}

fn users(items: &[Item], pack: &Item) -> String {
    match items.iter().filter(|item| item.area == Area::Steps && item.needs.contains(&pack.name)).count() {
        0 => "of no step".into(),
        1 => "of 1 step".into(),
        count => format!("of {count} steps"),
    }
}

fn prune(args: &PruneArgs, globals: &Globals) -> Result<()> {
    let (cache, reporter) = (globals.cache_dir()?, globals.reporter());
    let used_since = args.older_than.map(|age| now().saturating_sub(age));
    let limits = Limits { keep: args.keep, used_since, useless: true };
    let pruned =
        if args.dry_run { cache::prune::plan(&cache, limits)? } else { cache::prune(&cache, limits, &reporter)? };
    let row = |item: &Item| vec![item.area.name().into(), words::bytes(item.size), ago(item.used), item.name.clone()];
    if !pruned.removed.is_empty() {
        output::print(&words::table(&pruned.removed.iter().map(row).collect::<Vec<_>>()))?;
    }
    let done = if args.dry_run { "would be removed" } else { "removed" };
    output::print(&format!(
        "{} items, {} {done}; {} left in {}\n",
        pruned.removed.len(),
        words::bytes(pruned.freed()),
        words::bytes(pruned.left),
        cache.display()
    ))
}

fn verify(globals: &Globals) -> Result<()> {
    let cache = globals.cache_dir()?;
    let damaged = cache::verify(&cache, &globals.reporter())?;
    if damaged.is_empty() {
        return output::print(&format!("everything in {} is what its digests say\n", cache.display()));
    }
    Err(Error::new(Kind::Checks, format!("damaged: {}", damaged.join(", ")))
        .hint("it was set aside or removed; the next build gets or makes it again"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_and_sizes() {
        assert_eq!(age("30d"), Ok(30 * 86_400));
        assert_eq!(age("2w"), Ok(14 * 86_400));
        for wrong in ["", "d", "30", "-1d", "1y", "1 d", "5é"] {
            assert!(age(wrong).is_err(), "{wrong}");
        }
        assert_eq!((size("0"), size("1GiB")), (Ok(0), Ok(1 << 30)));
        assert!(size("much").is_err());
    }
}
