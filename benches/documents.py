#!/usr/bin/env python3
"""Time and memory of rendering overlays, beside kustomize: `make bench-documents`.

    benches/documents.py --program target/release/imagebuilder [--kustomize kubectl] [--runs 3] [--small]

Trees are made anew in a temporary folder, the same ones each time:

- `100 in 5 layers`: a base of 100 objects, each of four overlays with a prefix, labels with selectors, annotations, an
  image, a generator, 20 patches and a JSON patch;
- `N in 1 layer`: N objects, a namespace, a prefix, labels, and patches for one in fifty, for growth.

Both programs run in turns, each as a process of its own; what counts is the shortest time and the largest resident set.
The outputs must be the same bytes. `--kustomize` may be `kustomize` or `kubectl`; without either only ours is measured.
`--small` leaves out the tree that takes kustomize minutes.
"""
import argparse, hashlib, os, shutil, sys, tempfile, time

FAIL = 2


def write(folder, name, text):
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, name), "w") as file:
        file.write(text)


def objects(count):
    for at in range(count):
        if at % 4 == 3:
            yield f"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: config-{at}\ndata:\n  key: value-{at}\n"
        elif at % 4 == 2:
            yield (f"apiVersion: v1\nkind: Service\nmetadata:\n  name: service-{at}\nspec:\n  selector:\n    app: app-{at}\n"
                   "  ports:\n  - port: 80\n")
        else:
            yield (f"apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: app-{at}\nspec:\n  replicas: 1\n  selector:\n"
                   f"    matchLabels:\n      app: app-{at}\n  template:\n    metadata:\n      labels:\n        app: app-{at}\n"
                   f"    spec:\n      containers:\n      - name: main\n        image: nginx:1.25\n        env:\n"
                   f"        - name: FROM\n          valueFrom:\n            configMapKeyRef:\n"
                   f"              name: config-{at | 3}\n              key: key\n")


def patch(at, value):
    return (f"apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: app-{at}\nspec:\n  template:\n    spec:\n"
            f"      containers:\n      - name: main\n        env:\n        - name: PATCHED\n          value: \"{value}\"\n")


def base(folder, count):
    names = []
    for start in range(0, count, 500):
        part = [text for at, text in enumerate(objects(count)) if start <= at < start + 500]
        names.append(f"objects-{start}.yaml")
        write(folder, names[-1], "---\n".join(part))
    return names


def layered(root, count=100, layers=5):
    names = base(f"{root}/l0", count)
    write(f"{root}/l0", "kustomization.yaml", "resources:\n" + "".join(f"- {name}\n" for name in names))
    for layer in range(1, layers):
        folder = f"{root}/l{layer}"
        lines = ["resources:", f"- ../l{layer - 1}", f"namePrefix: p{layer}-", "labels:", "- includeSelectors: true",
                 "  pairs:", f"    layer-{layer}: \"yes\"", "commonAnnotations:", f"  note-{layer}: text", "images:",
                 "- name: nginx", f"  newTag: \"1.{layer}\"", "configMapGenerator:", f"- name: made-{layer}", "  literals:",
                 f"  - a={layer}", "patches:"]
        for number in range(20):
            at = number * 4
            write(folder, f"patch-{number}.yaml", patch(at, layer))
            lines.append(f"- path: patch-{number}.yaml")
        lines += ["- target:", "    kind: Service", "  patch: |-", "    - op: replace", "      path: /spec/ports/0/port",
                  f"      value: {8000 + layer}"]
        write(folder, "kustomization.yaml", "\n".join(lines) + "\n")
    return f"{root}/l{layers - 1}"


def flat(root, count):
    names = base(f"{root}/base", count)
    write(f"{root}/base", "kustomization.yaml", "resources:\n" + "".join(f"- {name}\n" for name in names))
    folder = f"{root}/over"
    lines = ["resources:", "- ../base", "namespace: blue", "namePrefix: p-", "labels:", "- pairs:", "    a: b", "patches:"]
    for at in range(0, count, 200):
        write(folder, f"patch-{at}.yaml", patch(at, at))
        lines.append(f"- path: patch-{at}.yaml")
    write(folder, "kustomization.yaml", "\n".join(lines) + "\n")
    return folder


def run(command):
    """Seconds, resident KiB and the digest of the output of a process."""
    with tempfile.TemporaryFile() as out:
        started = time.monotonic()
        process = os.posix_spawnp(command[0], command, os.environ,
                                  file_actions=[(os.POSIX_SPAWN_DUP2, out.fileno(), 1),
                                                (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0)])
        _, status, usage = os.wait4(process, 0)
        taken = time.monotonic() - started
        out.seek(0)
        digest = hashlib.sha256(out.read()).hexdigest()
    if status != 0:
        sys.exit(f"{' '.join(command)} failed ({status})")
    return taken, usage.ru_maxrss, digest


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--program", required=True)
    parser.add_argument("--kustomize")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--small", action="store_true")
    arguments = parser.parse_args()
    other = arguments.kustomize or shutil.which("kustomize") or shutil.which("kubectl")
    theirs = other and ([other, "build"] if os.path.basename(other).startswith("kustomize") else [other, "kustomize"])
    failed = False
    print(f"{'tree':22} {'ours s':>9} {'MiB':>7} {'theirs s':>9} {'MiB':>7} {'time':>8} {'memory':>8}  wanted")
    with tempfile.TemporaryDirectory() as root:
        cases = [("100 in 5 layers", layered(f"{root}/a"), 0.05, None, arguments.runs),
                 ("1,000 in 1 layer", flat(f"{root}/b", 1000), None, None, 1)]
        if not arguments.small:
            cases.append(("5,000 in 1 layer", flat(f"{root}/c", 5000), 0.01, 0.5, 1))
        times = {}
        for name, folder, time_wanted, memory_wanted, runs in cases:
            ours, others = [], []
            for _ in range(arguments.runs):
                ours.append(run([arguments.program, "render", folder]))
                if theirs and len(others) < runs:
                    others.append(run(theirs + [folder]))
            best, memory = min(r[0] for r in ours), max(r[1] for r in ours)
            times[name] = best
            row = f"{name:22} {best:9.3f} {memory / 1024:7.1f}"
            if others:
                if {r[2] for r in ours} != {r[2] for r in others}:
                    sys.exit(f"{name}: the outputs differ")
                ratio, share = best / min(r[0] for r in others), memory / max(r[1] for r in others)
                good = (time_wanted is None or ratio <= time_wanted) and (memory_wanted is None or share <= memory_wanted)
                failed |= not good
                wanted = f"time <= {time_wanted}" if time_wanted else ""
                wanted += f", memory <= {memory_wanted}" if memory_wanted else ""
                row += (f" {min(r[0] for r in others):9.3f} {max(r[1] for r in others) / 1024:7.1f} {ratio:8.4f} {share:8.3f}"
                        f"  {wanted or '-'}{'' if good else '  MISSED'}")
            print(row, flush=True)
        growth = [min(run([arguments.program, "render", flat(f"{root}/g{count}", count)])[0] for _ in range(arguments.runs))
                  for count in (5000, 10000, 20000)]
        print("growth: 5,000 / 10,000 / 20,000 objects in " + " / ".join(f"{taken:.2f} s" for taken in growth))
        if growth[2] > 8 * growth[0]:
            print("growth: MISSED, four times the objects take more than eight times as long")
            failed = True
    sys.exit(FAIL if failed else 0)


main()
