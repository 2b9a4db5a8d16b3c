#!/usr/bin/env python3
"""The ISO beside what nobody can do without: copying the file, and mksquashfs alone on the same content.

    cargo build --release
    benches/iso.py reseed out/ephemeral.iso
    sudo benches/iso.py warm out/ephemeral.iso --cache CACHE      # a cache that the ISO was built with

`reseed`: another seed for a finished ISO, beside `cp` of it. `warm`: the whole build from a tree that is in the cache but
of which nothing was compressed before, beside mksquashfs on the unpacked squashfs of the ISO at the same setting (root for
its owners; unsquashfs and mksquashfs of squashfs-tools). In turns, medians of the walls; the first round is not counted.
"""

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
USER_DATA = "#cloud-config\nhostname: bench\n"


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["reseed", "warm"])
    parser.add_argument("iso", type=Path)
    parser.add_argument("--program", type=Path, default=HERE.parent / "target/release/imagebuilder")
    parser.add_argument("--work", type=Path, default=Path("/dev/shm"), help="where files are written [%(default)s]")
    parser.add_argument("--cache", type=Path, help="what the ISO was built with")
    parser.add_argument("--config", type=Path, default=HERE.parent / "config", help="what it was built from [%(default)s]")
    parser.add_argument("--compression", default="zstd", help="of the ISO, for mksquashfs [%(default)s]")
    parser.add_argument("--runs", type=int)
    return parser.parse_args()


def timed(*words):
    began = time.monotonic()
    ran = subprocess.run([str(word) for word in words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    wall = time.monotonic() - began
    if ran.returncode != 0:
        sys.exit(f"{' '.join(map(str, words))}: {ran.stdout}")
    return wall


def in_turns(runs, ours, theirs, names, most):
    walls = ([], [])
    for number in range(runs + 1):
        pair = (ours(), theirs())
        print(f"run {number}: {names[0]} {pair[0]:.2f} s, {names[1]} {pair[1]:.2f} s", flush=True)
        if number > 0:
            walls[0].append(pair[0])
            walls[1].append(pair[1])
    mine, other = map(statistics.median, walls)
    verdict = "reached" if mine / other <= most else "missed"
    print(f"{names[0]} {mine:.2f} s, {names[1]} {other:.2f} s, ratio {mine / other:.2f} (asked: {most}, {verdict})")


def reseed(given, work):
    user_data = work / "user_data"
    user_data.write_text(USER_DATA)

    def ours():
        (work / "site.iso").unlink(missing_ok=True)
        return timed(given.program, "reseed", given.iso, "--user-data", user_data, "-o", work / "site.iso")

    def theirs():
        (work / "copy.iso").unlink(missing_ok=True)
        return timed("cp", "--reflink=never", given.iso, work / "copy.iso")

    in_turns(given.runs or 9, ours, theirs, ("reseed", "cp"), 1.5)


def warm(given, work):
    if given.cache is None:
        sys.exit("warm needs --cache")
    squashfs, root = work / "base.squashfs", work / "root"
    with open(squashfs, "wb") as out:
        ran = subprocess.run(["isoinfo", "-R", "-i", given.iso, "-x", "/live/filesystem.squashfs"], stdout=out)
    if ran.returncode != 0 or squashfs.stat().st_size == 0:
        sys.exit(f"no squashfs in {given.iso}")
    timed("unsquashfs", "-quiet", "-no-progress", "-dest", root, squashfs)
    squashfs.unlink()

    def ours():
        for kept in given.cache.glob("clusters-v*"):
            shutil.rmtree(kept)
        shutil.rmtree(work / "out", ignore_errors=True)
        words = ["build", "--config", given.config, "--image-type", "iso", "--cache-dir", given.cache, "--progress", "plain"]
        return timed(given.program, *words, "--output-dir", work / "out")

    def theirs():
        squashfs.unlink(missing_ok=True)
        return timed("mksquashfs", root, squashfs, "-no-progress", "-quiet", "-comp", given.compression)

    in_turns(given.runs or 3, ours, theirs, ("build", "mksquashfs"), 1.3)


def main():
    given = arguments()
    with tempfile.TemporaryDirectory(prefix="bench-iso-", dir=given.work) as work:
        {"reseed": reseed, "warm": warm}[given.what](given, Path(work))


if __name__ == "__main__":
    main()
