"""A small image set in memory, and a suite on it."""

from __future__ import annotations

import shutil
import signal
import sys
from pathlib import Path

import pytest

import iqa_harness as iqa
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


@pytest.fixture(scope="session")
def first_store(tmp_path_factory):
    """Folder of the stored run `first`, of two linear models on six images, and its tables; to be copied."""
    folder = tmp_path_factory.mktemp("first") / "store"
    shutil.copytree(Path(__file__).with_name("first_edition"), folder)
    iqa.load_run("first", folder)
    return folder


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
