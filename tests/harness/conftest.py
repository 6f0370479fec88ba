"""A small image set in memory, and a suite on it."""

from __future__ import annotations

import signal
import sys

import pytest

from helpers import tiny
from iqa_harness.cli import main
from iqa_suites import parse_suite


@pytest.fixture(scope="session")
def images():
    """Twelve test and twelve validation images of 16 x 16 pixels."""
    return tiny.make_images()


@pytest.fixture(scope="session")
def suite():
    """A suite of 12 images in cells of 4."""
    return parse_suite(tiny.SUITE, "tiny")


@pytest.fixture(scope="session")
def suite_text():
    """The TOML of `suite`."""
    return tiny.SUITE


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """One cache of embedded data for all tests."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def cli(monkeypatch, capsys, cache, tmp_path):
    """Run a command line in a folder of its own; return exit code, stdout, stderr."""
    monkeypatch.setenv("IQA_HARNESS_CACHE", str(cache))
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.chdir(tmp_path)
    before = signal.getsignal(signal.SIGTERM)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["iqa-harness", *arguments])
        with pytest.raises(SystemExit) as stop:
            main()
        captured = capsys.readouterr()
        return stop.value.code, captured.out, captured.err

    yield run
    signal.signal(signal.SIGTERM, before)  # the command line took it for itself
