"""What happens to a run's store while it goes on: cells vanish, the disk fills, the process is killed."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from helpers import tiny
from iqa_harness.cells.plan import plan
from iqa_harness.entrants.entrant import Entrant
from iqa_harness.machine.scratch import abandoned, scratch_folder
from iqa_harness.running.manifest import RunConfig
from iqa_harness.running.run import run_suite
from iqa_harness.training.maps import StoredMaps
from iqa_models import create_model
from iqa_results import ResultStore
from iqa_suites import parse_suite

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("harness", "models", "attacks", "suites", "results", "reports")
PATH = os.pathsep.join(str(ROOT / name) for name in PACKAGES)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A suite of two attacks on twelve images in a CSV."""
    folder = tmp_path_factory.mktemp("set")
    tiny.write_csv(folder, tiny.make_images())
    named = f'name = "{folder}/tiny.csv"\nmos_range = [1.0, 5.0]'
    (folder / "tiny.toml").write_text(tiny.SUITE.replace('name = "tiny"\nimages', f"{named}\nimages"))
    return folder


def start(folder, *arguments, **options):
    """Start the command line in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "iqa_harness", *arguments],
        env={**os.environ, "PYTHONPATH": PATH, "OMP_NUM_THREADS": "1", "COLUMNS": "100"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        **options,
    )


# Cells that vanish ------------------------------------------------------------------------------------------


def run(store, images, on_cell):
    entrants = [Entrant("m", create_model("linear", seed=1))]
    work = plan(parse_suite(tiny.SHORT, "tiny"), entrants, images)
    return run_suite(work, entrants, RunConfig("r", tiny.SHORT), store, on_cell=on_cell)


@pytest.mark.parametrize("harm", [Path.unlink, lambda path: path.write_bytes(b"no longer")])
def test_a_cell_that_vanishes_in_mid_run_is_not_done(tmp_path, images, harm):
    """Partial, the cell is named with its path, and the next start computes that one alone."""
    store, cells = ResultStore(tmp_path), []

    def meanwhile(cell, status):
        cells.append(cell)
        if len(cells) == 3:
            harm(store.cell_path(cells[0].key))

    manifest = run(store, images, meanwhile)
    assert manifest.status == "partial"
    lost = [cell for cell in manifest.cells if cell.status != "done"]
    assert [(c.key, c.status) for c in lost] == [(cells[0].key, "failed")]
    assert str(store.cell_path(cells[0].key)) in lost[0].error
    seen = []
    again = run(store, images, lambda cell, status: seen.append((cell.key, status)))
    assert again.status == "complete"
    assert [key for key, status in seen if status == "done"] == [cells[0].key]


VANDAL = """
from pathlib import Path
from iqa_models import LinearQuality, create_model, register_model

class Vandal(LinearQuality):
    def predict(self, images):
        parts = sorted(Path("iqa-store/cells").glob("*/*.parquet"))
        if len(parts) == 5 and not Path("once").exists():
            Path("once").touch()
            parts[2].unlink()
        return super().predict(images)

@register_model("vandal")
def vandal():
    base = create_model("linear", seed=3)
    return Vandal(base.spec.replace(name="vandal", options={}), base.pattern.data, 0.5)
"""


@pytest.mark.slow
def test_the_command_line_says_which_cell_vanished(cli, folder, tmp_path):
    """Exit code 4 and the cell in words; the same command goes on."""
    (tmp_path / "vandal.py").write_text(VANDAL)
    command = ("attack", "--suite", str(folder / "tiny.toml"), "-m", "vandal", "--plugin", "vandal.py")
    code, _, err = cli(*command, "--quiet")
    assert code == 4, err
    assert "failed: vandal" in err
    assert "deleted" in err
    assert cli(*command, "--quiet")[0] == 0


# Disks that fill --------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("executor", [[], ["--executor", "processes", "--workers", "1"]])
def test_a_full_disk_stops_the_run_at_once(folder, tmp_path, executor):
    """One error that names the path, code 3, `interrupted`; no cell is called failed or tried again.

    Room for the manifest and not for a part: the system refuses to let any file grow beyond 15 kB.
    """
    limit = 15_000

    def cramped():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    command = ("attack", "--suite", str(folder / "tiny.toml"), "-m", "linear", "--quiet", *executor)
    child = start(tmp_path, *command, preexec_fn=cramped)
    _, err = child.communicate(timeout=120)
    assert child.returncode == 3, err
    assert err.count("\n") == 1
    assert str(Path("iqa-store/cells")) in err
    manifest = json.loads((tmp_path / "iqa-store/runs/tiny/manifest.json").read_text())
    assert manifest["status"] == "interrupted"
    assert {cell["status"] for cell in manifest["cells"]} == {"missing"}
    assert not list(tmp_path.rglob("*.part"))


# Processes that are killed ----------------------------------------------------------------------------------


def test_a_temporary_folder_goes_with_its_block_and_is_nobody_elses_meanwhile(tmp_path):
    """While its process lives it is not abandoned, however old; afterwards nothing is left of it."""
    with scratch_folder(tmp_path) as held:
        (held / "weights").write_bytes(b"1")
        os.utime(held, (1, 1))
        assert abandoned(tmp_path) == []
        with scratch_folder(tmp_path) as second:
            assert held.is_dir()
            assert second != held
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_in_the_systems_place_goes_with_the_next_one(tmp_path, monkeypatch):
    """A trainer's maps, resized images, what Ray's workers unpack: in a folder of this user alone."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    code = "from iqa_harness.machine.scratch import Scratch; print(Scratch().path, flush=True); input()"
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )  # fmt: skip
    left = Path(child.stdout.readline().strip())
    assert left.is_dir()
    os.utime(left, (1, 1))
    with scratch_folder() as mine:
        assert mine.parent == left.parent
        assert mine.parent.stat().st_mode & 0o077 == 0
        assert left.is_dir()  # its process lives
    child.kill()
    child.communicate()
    maps = StoredMaps(1)
    assert not left.exists()
    del maps
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_what_a_killed_driver_leaves_is_found_by_gc_and_by_the_next_start(cli, folder, tmp_path):
    """Models for its workers lay below the store: `runs gc` deletes them, so does the next start."""
    command = ("attack", "--suite", str(folder / "tiny.toml"), "-m", "linear", "--quiet")
    processes = ("--executor", "processes", "--workers", "1")
    child = start(tmp_path, *command, *processes)
    below = tmp_path / "iqa-store" / "tmp"
    while not list(below.glob("*/models/*/card.json")) and child.poll() is None:
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.communicate(timeout=60)  # both pipes end with its worker, who holds them too
    assert child.returncode == -signal.SIGKILL
    for number, mend in enumerate((("runs", "gc", "--yes"), (*command, *processes))):
        store = ("--store", str(shutil.copytree(tmp_path / "iqa-store", tmp_path / f"copy{number}")))
        assert len(abandoned(tmp_path / f"copy{number}")) == 1
        code, out, _ = cli("runs", "gc", *store)
        assert (code, "and 1 fragments" in out) == (0, True)
        assert len(abandoned(tmp_path / f"copy{number}")) == 1
        assert cli(*mend, *store)[0] == 0
        assert not list((tmp_path / f"copy{number}").rglob("work-*"))
