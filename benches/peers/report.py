"""From readings to tables: medians, and ratios against the targets."""

import csv
import statistics

FIELDS = ["place", "work", "tool", "round", "status", "wall", "user", "system", "process_mib", "tree_mib", "size", "load"]
OURS = "imagebuilder"
STOCK = ["vmdb2", "debos", "mkosi"]  # that make a disk from their own recipes; `pieces` is tuned by hand

# what is compared (measure, work), with what (tools, work), and how much of it may be needed
TARGETS = [
    ("wall", "w1", STOCK, "w1", 0.25),
    ("cpu", "w1", STOCK, "w1", 0.5),
    ("wall", "w1", ["pieces"], "w1", 0.5),
    ("wall", "store", STOCK, "w1", 0.15),
    ("wall", "w2", ["live-build"], "w2", 0.3),
    ("wall", "w3", ["mmdebstrap"], "w3", 0.3),
    ("wall", "w4", ["mkosi"], "w4", 0.05),
    ("wall", "w4", ["pieces"], "w4", 0.4),
    ("wall", "profile", [OURS], "w1", 0.10),
    ("wall", "twenty", [OURS], "zstd", 2.0),
]
PEAK_MIB = 600


def append(path, reading):
    fresh = not path.exists()
    with open(path, "a", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        if fresh:
            writer.writeheader()
        writer.writerow(reading)


def read(path):
    """The readings of runs that succeeded."""
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    return [row for row in rows if row["status"] == "0"]


class Row:
    def __init__(self, readings):
        def of(measure):
            return [float(reading[measure]) for reading in readings]

        self.runs = len(readings)
        self.walls = of("wall")
        self.wall = statistics.median(self.walls)
        self.cpu = statistics.median(user + system for user, system in zip(of("user"), of("system")))
        self.process, self.tree = max(of("process_mib")), max(of("tree_mib"))
        self.size = statistics.median(of("size"))


def rows(readings):
    """(place, work, tool) -> Row, in the order of their first reading."""
    groups = {}
    for reading in readings:
        groups.setdefault((reading["place"], reading["work"], reading["tool"]), []).append(reading)
    return {key: Row(group) for key, group in groups.items()}


def table(head, lines):
    widths = [max(len(line[column]) for line in [head, *lines]) for column in range(len(head))]
    ruler = ["-" * width for width in widths]
    return "\n".join("| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths)) + " |" for line in [head, ruler, *lines])


def measured(found, boots):
    head = ["on", "work", "tool", "runs", "wall s", "(from - to)", "CPU s", "process MiB", "all MiB", "size MB", "boots"]
    lines = []
    for (place, work, tool), row in found.items():
        span = f"{min(row.walls):.1f} - {max(row.walls):.1f}"
        figures = [f"{row.wall:.1f}", span, f"{row.cpu:.1f}", f"{row.process:.0f}", f"{row.tree:.0f}", f"{row.size / 1e6:.0f}"]
        lines.append([place, work, tool, str(row.runs), *figures, boots.get((work, tool), "")])
    return table(head, lines)


def targets(found):
    """The table, and how many targets were missed."""
    lines, missed = [], 0
    for place in dict.fromkeys(key[0] for key in found):
        for measure, work, tools, other, most in TARGETS:
            ours = found.get((place, work, OURS))
            theirs = [(getattr(found[place, other, tool], "wall"), tool) for tool in tools if (place, other, tool) in found]
            if ours is None or not theirs:
                continue
            tool = min(theirs)[1]
            ratio = getattr(ours, measure) / getattr(found[place, other, tool], measure)
            missed += ratio > most
            lines.append([place, f"{measure} of {work}", f"{tool}, {other}", f"{ratio:.3f}", f"<= {most}", "missed" if ratio > most else "reached"])
        ours = found.get((place, "w1", OURS))
        if ours is not None:
            peak = max(ours.process, ours.tree)
            missed += peak > PEAK_MIB
            verdict = "missed" if peak > PEAK_MIB else "reached"
            lines.append([place, "memory of w1", "", f"{peak:.0f} MiB", f"<= {PEAK_MIB} MiB", verdict])
    return table(["on", "ours", "beside", "ratio", "target", ""], lines), missed
