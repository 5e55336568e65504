"""A child process that reads checkpoints for the campaign of files, one step a line, and says what became of it.

It may be killed by what it reads. It has a cap on its memory, and not root's right to open every file.
"""

import ctypes
import json
import os
import resource
import sys
from pathlib import Path

import psutil
import torch

from kinetograph.modules.doctor import examine
from kinetograph.modules.families import FAMILIES
from kinetograph.modules.weights.detect import detect_all
from kinetograph.modules.weights.errors import CheckpointError
from kinetograph.modules.weights.files import open_weights, read_header
from kinetograph.modules.weights.load import assign, open_part

ROOM = 2 * 2**30  # bytes of address space beyond what the imports take
CAPABILITY_VERSION = 0x20080522
PASSES_MODES = 1 << 1 | 1 << 2  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH


def detected(path):
    """What a loader does before it believes a file."""
    for finding in detect_all(read_header(path), FAMILIES):
        finding.check()


def report(path):
    """What Model Doctor says."""
    found = examine(path)
    json.dumps(found.to_json())
    return found.to_text()


def loaded(path):
    """What is called complete must load."""
    for finding in detect_all(read_header(path), FAMILIES):
        if finding.complete and finding.part.build is not None:
            assign(finding.part.empty(finding.config), open_part(path, finding), torch.float32)


STEPS = {"header": read_header, "weights": open_weights, "detect": detected, "doctor": report, "load": loaded}


def attempt(step, path):
    """[step, "" or the exception's type, whether it is our own, its words or the step's]."""
    try:
        text = STEPS[step](path)
        return [step, "", True, text if isinstance(text, str) else ""]
    except Exception as error:
        return [step, type(error).__name__, isinstance(error, CheckpointError), str(error)]


def restrict():
    """Cap the memory, and let closed files be closed to us even where we are root."""
    taken = psutil.Process().memory_info().vms
    resource.setrlimit(resource.RLIMIT_AS, (taken + ROOM, taken + ROOM))
    if os.getuid() == 0:
        libc = ctypes.CDLL(None, use_errno=True)
        head, sets = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0), (ctypes.c_uint32 * 6)()
        libc.capget(head, sets)
        for number in range(3):  # effective, permitted, inheritable
            sets[number] &= ~PASSES_MODES
        if libc.capset(head, sets):
            raise OSError(ctypes.get_errno(), "Cannot give up the right to open every file.")


def say(value):
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def main():
    torch.set_num_threads(1)
    restrict()
    say("ready")
    for line in sys.stdin:
        step, path = json.loads(line)
        say(attempt(step, Path(path)))


if __name__ == "__main__":
    main()
