"""Runs a command and says what it and everything it started took."""

import os
import signal
import subprocess
import threading
import time
from pathlib import Path


class Usage:
    """wall, user, system: seconds; process: the largest process, tree: the most that all had at once, both in MiB."""

    def __init__(self, status, wall, usage, tree):
        self.status = status
        self.wall, self.user, self.system = wall, usage.ru_utime, usage.ru_stime
        self.process, self.tree = usage.ru_maxrss / 1024, tree / 1024


def run(command, environment, folder, log):
    began = time.monotonic()
    with open(log, "wb") as file:
        quiet = dict(stdin=subprocess.DEVNULL, stdout=file, stderr=file)
        process = subprocess.Popen(command, env=environment, cwd=folder, process_group=0, **quiet)
    watch = Watch(process.pid)
    try:
        _, status, usage = os.wait4(process.pid, 0)
    except BaseException:
        # All of it, and time to take its mounts away.
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()
        raise
    finally:
        wall = time.monotonic() - began
        watch.end()
    process.returncode = os.waitstatus_to_exitcode(status)
    return Usage(process.returncode, wall, usage, watch.most)


class Watch(threading.Thread):
    """The memory of a process and all below it, twice a second: what is neither a file's nor on tmpfs; what processes
    share counts once (Pss_Anon)."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.pid, self.most, self.over = pid, 0, threading.Event()
        self.start()

    def run(self):
        while not self.over.wait(0.5):
            self.most = max(self.most, sum(anonymous(pid) for pid in below(self.pid)))

    def end(self):
        self.over.set()
        self.join()


def below(pid):
    """The process and its descendants."""
    children = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            number, _, rest = stat.read_text().rpartition(")")
            children.setdefault(int(rest.split()[1]), []).append(int(number.split()[0]))
        except OSError:
            pass  # ended meanwhile
    found = [pid]
    for one in found:
        found += children.get(one, [])
    return found


def anonymous(pid):
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss_Anon:"):
                return int(line.split()[1])
    except OSError:
        pass
    return 0
