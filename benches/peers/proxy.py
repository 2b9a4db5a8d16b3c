"""A caching proxy in front of the mirror: apt-cacher-ng on a port and in a folder of its own."""

import socket
import subprocess
import time
import urllib.request

# What tools take on top of the common list, and what they call a minimal system.
EXTRAS = ["zstd", "systemd-boot", "grub-pc", "apt", "locales", "less", "ethtool", "rsync", "tree", "ncdu", "pv", "mtr-tiny", "bc"]
EXTRAS += ["?and(?or(?essential,?priority(required)),?architecture(native))"]


class Failed(Exception):
    """Said to the user as it is."""


def free_port():
    """Not one of the kernel's choice: it takes none above 32767."""
    for port in range(13142, 13242):
        with socket.socket() as attempt:
            try:
                attempt.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue
    raise Failed("no free port for the caching proxy between 13142 and 13241")


class Proxy:
    def __init__(self, folder, mirror):
        folder.mkdir(parents=True, exist_ok=True)
        port = free_port()
        for name in ("cache", "log"):
            (folder / name).mkdir(exist_ok=True)
        lines = [f"Port: {port}", "BindAddress: 127.0.0.1", f"CacheDir: {folder}/cache"]
        lines += [f"LogDir: {folder}/log", "ForeGround: 1", "ExThreshold: 40", f"Remap-debian: /debian ; {mirror}"]
        (folder / "acng.conf").write_text("\n".join(lines) + "\n")
        self.folder, self.address = folder, f"http://127.0.0.1:{port}/debian"
        with open(folder / "said", "wb") as said:
            self.process = subprocess.Popen(["apt-cacher-ng", "-c", folder], stdout=said, stderr=said)
        try:
            self.wait()
        except BaseException:
            self.stop()
            raise

    def wait(self):
        for _ in range(100):
            try:
                urllib.request.urlopen(self.address + "/dists/bookworm/InRelease", timeout=30).read()
                return
            except OSError as error:
                said = (self.folder / "said").read_text(errors="replace").strip()
                if self.process.poll() is not None:
                    raise Failed(f"apt-cacher-ng ended: {said}") from error
                reason = error
                time.sleep(0.1)
        raise Failed(f"no mirror through the caching proxy: {reason}")

    def warm(self, packages, scratch):
        """Downloads everything once, as apt on a machine without any package would."""
        for name in ("lists/partial", "archives/partial", "parts"):
            (scratch / name).mkdir(parents=True, exist_ok=True)
        sources = scratch / "sources.list"
        sources.write_text(f"deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] {self.address} bookworm main\n")
        (scratch / "status").touch()
        options = {
            "Dir::Etc::SourceList": sources, "Dir::Etc::SourceParts": scratch / "parts", "Dir::Etc::Parts": scratch / "parts",
            "Dir::Etc::Preferences": "/dev/null", "Dir::Etc::PreferencesParts": scratch / "parts",
            "Dir::State::Lists": scratch / "lists", "Dir::State::Status": scratch / "status",
            "Dir::Cache::Archives": scratch / "archives", "Dir::Cache::PkgCache": "", "Dir::Cache::SrcPkgCache": "",
            "APT::Install-Recommends": "false", "APT::Sandbox::User": "root", "Debug::NoLocking": "true",
        }  # fmt: skip
        words = ["apt-get", "-qq"] + [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
        for verb in (["update"], ["install", "-y", "--download-only", *packages, *EXTRAS]):
            done = subprocess.run(words + verb, stdin=subprocess.DEVNULL, capture_output=True, text=True)
            if done.returncode:
                raise Failed(f"warming the proxy: {done.stderr.strip()}")

    def stop(self):
        self.process.terminate()
        self.process.wait()
