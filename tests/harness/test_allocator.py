"""Buffers that a command frees are used again; where somebody chose otherwise nothing is touched."""

import json
import os
import platform
import subprocess
import sys

import pytest

from iqa_harness.machine.allocator import KEPT

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")

FRESH_PAGES = """
import json, resource, sys
from iqa_harness.machine.allocator import keep_buffers
if sys.argv[1:] == ["keep"]:
    keep_buffers()
if sys.argv[1:] == ["score"]:
    import numpy as np
    import iqa_harness as iqa
    iqa.check_model("linear", [np.zeros((32, 32, 3), np.uint8)])
def pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    b"x" * 2**26
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(json.dumps([pages() for _ in range(30)][-5:]))
"""
"""Pages that the kernel makes for 64 MiB, taken and freed 30 times, the last five; 32 of 2 MiB hold it."""


def _pages(*arguments, **variables):
    clean = {name: value for name, value in os.environ.items() if "MALLOC_" not in name}
    done = subprocess.run(
        [sys.executable, "-c", FRESH_PAGES, *arguments],
        env=clean | variables, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return json.loads(done.stdout)


def test_a_large_buffer_is_made_of_the_pages_of_the_one_before():
    """Left alone each one is new; kept, none of its pages is."""
    assert min(_pages()) >= 32
    assert max(_pages("keep")) < 8


def test_what_is_set_from_outside_stays():
    """One variable of the three is enough; set as the process would set them, they do the same."""
    assert min(_pages("keep", MALLOC_TRIM_THRESHOLD_="0")) >= 32
    assert max(_pages(**{name: str(size) for name, (_, size) in KEPT.items()})) < 8


@pytest.mark.slow
def test_what_computes_keeps_its_buffers():
    """From Python as from a command: whatever asks for its device."""
    assert max(_pages("score")) < 8
