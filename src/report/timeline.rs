//! The timeline of a run: when each step ran, and what it used. As JSON for programs, as a table for people.
//!
//! Owns: both forms. The JSON object has `version` (1, raised when a field changes its meaning or goes), `cores`,
//! `wallSeconds`, `cpuSeconds`, `peakMemoryBytes` (of this process), `peakHelperMemoryBytes` (of the largest other
//! process) and `steps`, in the order in which they began: {name, startSeconds, wallSeconds, cpuSeconds, bytes?, items?,
//! peakMemoryBytes, detail}. `cpuSeconds` of a step is what the whole program used meanwhile, so steps that ran side by
//! side count the same time; `peakMemoryBytes` is the largest resident set from the beginning to the end of the step.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Timing, words};

const VERSION: u64 = 1;
/// Characters of the bars.
const WIDTH: usize = 32;

/// What a run as a whole has used.
#[derive(Debug, Clone, Copy, Default)]
pub struct Total {
    pub wall: Duration,
    pub cpu: Duration,
    pub peak_memory: u64,
    pub peak_helper_memory: u64,
    pub cores: usize,
}

/// In the order in which they began.
fn ordered(timings: &[Timing]) -> Vec<&Timing> {
    let mut ordered: Vec<&Timing> = timings.iter().collect();
    ordered.sort_by_key(|timing| (timing.start, std::cmp::Reverse(timing.wall)));
    ordered
}

pub fn json(timings: &[Timing], total: &Total) -> Value {
    let step = |timing: &&Timing| {
        let mut step = json!({
            "name": timing.name,
            "startSeconds": timing.start.as_secs_f64(),
            "wallSeconds": timing.wall.as_secs_f64(),
            "cpuSeconds": timing.cpu.as_secs_f64(),
            "peakMemoryBytes": timing.peak_memory,
            "detail": timing.detail,
        });
        for (field, amount) in [("bytes", timing.bytes), ("items", timing.items)] {
            if amount > 0 {
                step[field] = json!(amount);
            }
        }
        step
    };
    json!({
        "version": VERSION,
        "cores": total.cores,
        "wallSeconds": total.wall.as_secs_f64(),
        "cpuSeconds": total.cpu.as_secs_f64(),
        "peakMemoryBytes": total.peak_memory,
        "peakHelperMemoryBytes": total.peak_helper_memory,
        "steps": ordered(timings).iter().map(step).collect::<Vec<_>>(),
    })
}

/// One line a step, with a bar where it lies in the whole run: what ran side by side is seen at a glance.
pub fn table(timings: &[Timing], total: &Total) -> String {
    let head = ["STEP", "START", "TIME", "CPU", "PEAK MEMORY", "TIMELINE"].map(str::to_owned).to_vec();
    let row = |timing: &&Timing| {
        vec![
            timing.name.clone(),
            words::duration(timing.start),
            words::duration(timing.wall),
            words::duration(timing.cpu),
            words::bytes(timing.peak_memory),
            bar(timing, total.wall),
        ]
    };
    words::table(&std::iter::once(head).chain(ordered(timings).iter().map(row)).collect::<Vec<_>>())
}

fn bar(timing: &Timing, whole: Duration) -> String {
    let column = |time: Duration| {
        let share = time.as_secs_f64() / whole.as_secs_f64().max(f64::MIN_POSITIVE);
        ((share * WIDTH as f64) as usize).min(WIDTH - 1)
    };
    let (first, last) = (column(timing.start), column(timing.start + timing.wall));
    let mark = |at: usize| if (first..=last).contains(&at) { '#' } else { '.' };
    (0..WIDTH).map(mark).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timing(name: &str, start: u64, wall: u64) -> Timing {
        Timing {
            name: name.into(),
            start: Duration::from_secs(start),
            wall: Duration::from_secs(wall),
            bytes: wall,
            ..Timing::default()
        }
    }

    #[test]
    fn steps_side_by_side_are_seen() {
        let total = Total { wall: Duration::from_secs(8), cores: 2, ..Total::default() };
        let steps = [timing("inner", 2, 2), timing("outer", 0, 8), timing("late", 7, 0)];
        let text = table(&steps, &total);
        let bars: Vec<&str> = text.lines().skip(1).filter_map(|line| line.rsplit("  ").next()).collect();
        let expected = [
            "################################",
            "........#########...............",
            "............................#...",
        ];
        assert_eq!(bars, expected);
        let json = json(&steps, &total);
        assert_eq!(json["steps"][0]["name"], "outer");
        assert_eq!((&json["steps"][1]["startSeconds"], &json["steps"][1]["bytes"]), (&2.0.into(), &2.into()));
        assert!(json["steps"][2].get("bytes").is_none() && json["steps"][2].get("items").is_none());
        assert_eq!((&json["version"], &json["wallSeconds"]), (&1.into(), &8.0.into()));
    }

    #[test]
    fn a_run_without_steps_or_time_is_fine() {
        assert_eq!(bar(&timing("x", 0, 0), Duration::ZERO).len(), WIDTH);
        assert!(table(&[], &Total::default()).starts_with("STEP"));
    }
}
