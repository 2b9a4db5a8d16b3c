#!/usr/bin/env python3
"""Asks the inspector that Ironic uses (oslo.utils) whether it would accept an image.

Usage: ironic_inspector.py IMAGE FORMAT [VIRTUAL_SIZE]

Needs oslo.utils 7.3 or newer: `python3 -m venv V && V/bin/pip install oslo.utils cryptography`.
"""

import sys

from oslo_utils.imageutils import format_inspector


def main(path, wanted, virtual_size=None):
    inspector = format_inspector.detect_file_format(path)
    if str(inspector) != wanted:
        return f"{path} looks like {inspector}, not {wanted}"
    # Raises SafetyCheckFailed: backing file, external data file, unknown features.
    inspector.safety_check()
    if virtual_size is not None and inspector.virtual_size != int(virtual_size):
        return f"{path} has a virtual size of {inspector.virtual_size}, not {virtual_size}"
    print(f"{path}: {inspector}, {inspector.virtual_size} bytes, accepted")
    return None


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
