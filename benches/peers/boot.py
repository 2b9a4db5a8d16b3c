"""Whether an image boots: QEMU without KVM (so that it works everywhere), BIOS, a login at the serial line, a few questions.

Used by `bench`; alone: boot.py IMAGE. The image is not changed.
"""

import os
import select
import subprocess
import sys
import time

PASSWORD = "root"
# Put together so that the echo of the typed line does not look like the answer.
QUESTION = (
    'echo "BE""GIN $(dpkg-query -W | wc -l) $(sysctl -n vm.swappiness) $(uname -r) $(findmnt -no FSTYPE /) E""ND"\n'
)


class Failed(Exception):
    """The image did not get so far."""


class Guest:
    def __init__(self, image):
        words = ["qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "2048"]
        words += ["-display", "none", "-serial", "stdio", "-monitor", "none", "-no-reboot", "-nic", "user,model=virtio-net-pci"]
        words += ["-drive", "format=qcow2,if=virtio,snapshot=on,file=" + image.replace(",", ",,")]
        pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.process = subprocess.Popen(words, **pipes)
        self.heard = b""

    def wait(self, word, deadline):
        """Reads on until the word has been heard, and forgets what was up to it."""
        while word not in self.heard:
            if time.monotonic() > deadline:
                raise Failed(f"no `{word.decode()}` in time; last heard: {self.heard[-300:]!r}")
            if select.select([self.process.stdout], [], [], 1)[0]:
                data = os.read(self.process.stdout.fileno(), 65536)
                if not data:
                    raise Failed(f"QEMU ended; last heard: {self.heard[-300:]!r}")
                self.heard += data
        before, _, self.heard = self.heard.partition(word)
        return before

    def type(self, text):
        time.sleep(0.5)
        self.process.stdin.write(text.encode())
        self.process.stdin.flush()


def check(image, patience=300):
    """Seconds to the login prompt, and what the system answered: packages, sysctl, kernel, file system."""
    began = time.monotonic()
    guest = Guest(image)
    try:
        guest.wait(b" login: ", began + patience)
        seconds = time.monotonic() - began
        deadline = time.monotonic() + 120
        guest.type("root\n")
        guest.wait(b"assword: ", deadline)
        guest.type(PASSWORD + "\n")
        guest.wait(b"# ", deadline)
        guest.type(QUESTION)
        guest.wait(b"BEGIN ", deadline)
        packages, swappiness, kernel, root = guest.wait(b" END", deadline).decode().split()
        return {"seconds": round(seconds), "packages": int(packages), "swappiness": swappiness, "kernel": kernel, "root": root}
    finally:
        guest.process.kill()
        guest.process.wait()


if __name__ == "__main__":
    print(check(sys.argv[1]))
