"""Very many damaged inputs, by seed: each ends in success or in an error that a user can act on.

Suites, presets, studies, --set, cards, logs, manifests, baselines, evaluations, labels as CSV and JSON,
zips, images, Parquet parts and words for models are changed at random (bytes flipped, cut, doubled; values
replaced by deep lists, numbers of thousands of digits, NUL, escapes, other types) and given to the functions
that read them and to those that use what was read. Anything but success, an `IQAError` or an `OSError` is a
fault, and so is an input that takes longer than 20 s. One in a hundred goes through the command line in a
process of its own.

Last run, beside other processes: 20,000 inputs of seed 32 in 1,431 s: 15,625 refused with one error, 4,375
taken, 187 of all through the command line; 0 faults, 0 over 20 s. Nine faults of some 90,000 inputs before
it (seeds 22 to 31) are mended, each with a test.

    python tests/benchmarks/bench_fuzz.py --inputs 20000 --seed 0 --log fuzz.log
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from importlib import resources
from pathlib import Path

from mutations import either, mutate_bytes, mutate_json, mutate_toml
from small_world import make_world

import iqa_harness as iqa
from iqa_errors import IQAError
from iqa_harness.api.runs import list_runs, merge_runs
from iqa_harness.cells.selection import recorded_suite
from iqa_harness.data.catalogue import check_source
from iqa_harness.data.catalogue import open_data as open_set
from iqa_harness.entrants.entrant import Entrant
from iqa_harness.entrants.naming import as_entrant, from_record
from iqa_harness.evaluation.evaluate import add_to_store
from iqa_harness.evaluation.store import Evaluated, EvaluationStore
from iqa_harness.reporting.inputs import read_inputs
from iqa_harness.reporting.results import training_record
from iqa_harness.reporting.studies import checkpoint_results
from iqa_harness.running.ledger import refreshed
from iqa_harness.studies.study import load_study, study_rows
from iqa_harness.training.config import changed, find_config, read_changes
from iqa_models import load_checkpoint
from iqa_results import ResultStore
from iqa_suites import load_suite

LIMIT = 20
"""Seconds that no input may take."""
PRESETS = resources.files("iqa_harness.training") / "presets"
STUDY = """
name = "s"
summary = "two rows"
preset = "demo_resnet10t"
seeds = [0, 1]
[base]
epochs = 1
[grid]
lr = [0.1, 0.2]
"""


Reader = Callable[[bytes], object]
Target = tuple[bytes, Callable[[bytes, random.Random], bytes], Reader]


def with_file(path: Path, use: Callable[[], object]) -> Reader:
    """Return what writes a file and uses it."""

    def read(content: bytes) -> object:
        path.write_bytes(content)
        return use()

    return read


def targets(folder: Path) -> dict[str, Target]:
    """Make whole inputs, and say how each is changed and who reads it."""
    make_world(folder)
    store, data, mine = ResultStore(folder / "store"), f"{folder}/small.csv", folder / "mine"
    iqa.attack(str(folder / "suite.toml"), ["linear", f"{mine}"], store=store, run="r", progress=False)
    iqa.save_baseline("base", "r", store=store, folder=folder)
    iqa.evaluate("linear", f"{data}?mos_range=1,5", store=folder / "store", progress=False)
    iqa.export_run("r", folder / "r.zip", store)
    manifest, evaluated = folder / "store/runs/r/manifest.json", folder / "store/evaluations/evaluation"
    part = next((folder / "store/cells").glob("*/*.parquet"))
    unsigned = json.loads(manifest.read_bytes())
    del unsigned["sha256"]
    images = open_set(f"{data}?mos_range=1,5", progress=False)
    evaluations = EvaluationStore(folder / "store")

    def suite() -> None:
        loaded = load_suite(str(folder / "x.toml"))
        loaded.on_data("demo", (1.0, 5.0))
        repr(loaded)

    def setting(content: bytes) -> None:
        text = content.decode("utf-8", "surrogateescape")
        changed(find_config("demo_resnet10t"), read_changes([text]), "--set")

    def card() -> None:
        for use in (
            lambda: Entrant("m", load_checkpoint(mine)).sha256,
            lambda: iqa.evaluate(str(mine), images, store=folder / "s2", name="c", progress=False),
            lambda: read_inputs([mine]),
            lambda: checkpoint_results(mine),
            lambda: [training_record(model) for model in store.read_manifest("r").models],
        ):
            with contextlib.suppress(IQAError, OSError):
                use()

    def light() -> None:
        read = refreshed(store, store.read_manifest("r"))
        for use in (lambda: recorded_suite(read), lambda: list_runs(store), read.model_dump_json):
            with contextlib.suppress(IQAError, OSError):
                use()
        for model in read.models:
            with contextlib.suppress(IQAError, OSError):
                from_record(model)

    def heavy() -> None:
        for use in (
            lambda: iqa.report("r", store=store, out=folder / "out", formats=("md", "html")),
            lambda: iqa.verify("r", store=store, sample=0, progress=False),
            lambda: iqa.gate(folder / "base", "r", store=store),
            lambda: iqa.leaderboard([folder / "store"], out=folder / "out"),
        ):
            with contextlib.suppress(IQAError, OSError):
                use()

    def joined() -> None:
        former = evaluations.read("evaluation")
        if former is not None:
            nothing = {"models": [], "data": [], "seed": 0}
            empty = Evaluated(former.rows.slice(0, 0), former.scores.slice(0, 0), nothing)
            with contextlib.suppress(IQAError, OSError):
                add_to_store(empty, evaluations, "evaluation")
            evaluations.read("evaluation")
            iqa.evaluate("linear", images, store=folder / "store", progress=False)

    def merged() -> None:
        shutil.rmtree(folder / "other", ignore_errors=True)
        merge_runs(str(folder / "x.zip"), folder / "other")

    def labels() -> None:
        check_source(f"{folder}/x.csv?mos_range=1,5", progress=False)
        opened = open_set(f"{folder}/x.csv?mos_range=1,5", progress=False)
        [opened.read(i) for i in range(len(opened))]

    def listed() -> None:
        opened = open_set(f"json:{folder}?test={folder}/x.json&mos_range=1,5", progress=False)
        [opened.read(i) for i in range(len(opened))]

    def words(content: bytes) -> None:
        as_entrant(content.decode("utf-8", "replace"))

    def picture() -> None:
        opened = open_set(f"{folder}/one.csv?mos_range=1,5", progress=False)
        opened.read(0)

    (folder / "one.csv").write_text("path,mos\nx.png,3\n")
    model_words = b"a=linear?seed=1&checkpoint=" + str(mine).encode()
    figures, log = mine / "figures.json", mine / "log.jsonl"
    return {
        "suite": ((folder / "suite.toml").read_bytes(), mutate_toml, with_file(folder / "x.toml", suite)),
        "preset": (
            PRESETS.joinpath("demo_resnet10t.toml").read_bytes(),
            mutate_toml,
            with_file(folder / "x.toml", lambda: find_config(str(folder / "x.toml"))),
        ),
        "study": (
            STUDY.encode(),
            mutate_toml,
            with_file(folder / "x.toml", lambda: study_rows(load_study(str(folder / "x.toml"))[0])),
        ),
        "set": (b"lr=0.1", mutate_toml, setting),
        "words": (b"linear?seed=1", mutate_toml, words),
        "words of a checkpoint": (model_words, mutate_bytes, words),
        "card": ((mine / "card.json").read_bytes(), either, with_file(mine / "card.json", card)),
        "figures": (figures.read_bytes(), either, with_file(figures, lambda: checkpoint_results(mine))),
        "log": (log.read_bytes(), mutate_bytes, with_file(log, lambda: read_inputs([mine]))),
        "log, changed": (
            b'{"epoch": 1, "loss": 0.5, "rates": {"a": 0.1}, "val_srocc": null}',
            mutate_json,
            with_file(log, lambda: read_inputs([mine])),
        ),
        "manifest": (json.dumps(unsigned).encode(), either, with_file(manifest, light)),
        "manifest, used": (json.dumps(unsigned).encode(), mutate_json, with_file(manifest, heavy)),
        "baseline": (
            (folder / "base/baseline.json").read_bytes(),
            either,
            with_file(folder / "base/baseline.json", lambda: iqa.show_baseline(folder / "base")),
        ),
        "evaluation": (
            (evaluated / "manifest.json").read_bytes(),
            either,
            with_file(evaluated / "manifest.json", joined),
        ),
        "evaluation's table": (
            (evaluated / "table.parquet").read_bytes(),
            mutate_bytes,
            with_file(evaluated / "table.parquet", lambda: evaluations.read("evaluation")),
        ),
        "csv": ((folder / "small.csv").read_bytes(), mutate_bytes, with_file(folder / "x.csv", labels)),
        "json": ((folder / "small.json").read_bytes(), either, with_file(folder / "x.json", listed)),
        "zip": ((folder / "r.zip").read_bytes(), mutate_bytes, with_file(folder / "x.zip", merged)),
        "image": ((folder / "test0.png").read_bytes(), mutate_bytes, with_file(folder / "x.png", picture)),
        "part": (part.read_bytes(), mutate_bytes, with_file(part, lambda: store.read_cell(part.stem))),
    }


WEIGHTS = {"manifest, used": 0.1, "evaluation": 0.3, "zip": 0.3}
"""How often a target is tried beside the others, which are tried equally often: these are slow."""
COMMANDS: dict[str, tuple[str, ...]] = {
    "suite": ("attack", "--suite", "x.toml", "-m", "linear", "--dry-run", "--quiet"),
    "preset": ("train", "x.toml", "--show"),
    "study": ("study", "x.toml", "--show"),
    "card": ("models", "show", "./mine"),
    "manifest": ("runs", "show", "r", "--store", "store"),
    "manifest, used": ("runs", "list", "--store", "store"),
    "baseline": ("baseline", "show", "base"),
    "csv": ("data", "check", "x.csv?mos_range=1,5"),
    "json": ("data", "info", "json:.?test=x.json&mos_range=1,5"),
    "zip": ("runs", "merge", "x.zip", "--store", "merged"),
}
"""What the command line does with a target's file."""


class TooLong(BaseException):
    """An input took longer than LIMIT."""


def _alarm(*_: object) -> None:
    raise TooLong


def try_here(read: Reader, content: bytes) -> tuple[str, str]:
    """Give an input to its readers; return what became of it and, of a fault, the traceback."""
    signal.alarm(LIMIT)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            read(content)
    except (IQAError, OSError):
        return "refused", ""
    except TooLong:
        return "hang", traceback.format_exc()
    except Exception:  # noqa: BLE001 - what is looked for
        return "fault", traceback.format_exc()
    finally:
        signal.alarm(0)
    return "taken", ""


def try_command(folder: Path, arguments: tuple[str, ...]) -> tuple[str, str]:
    """Run the command line on what lies there now."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", "iqa_harness", *arguments],
            cwd=folder, capture_output=True, text=True, errors="replace", timeout=60, check=False,
            env={**os.environ, "IQA_HARNESS_CACHE": str(folder / "cache")},
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return "hang", " ".join(arguments)
    if done.returncode in (70, 1) and "Traceback" in done.stderr:
        return "fault", done.stderr
    return ("taken" if done.returncode == 0 else "refused"), ""


def fuzz(inputs: int, seed: int, folder: Path, log: Path, *, commands: float = 0.01) -> Counter[str]:
    """Try inputs one after the other; return how often each outcome came, and write faults to the log."""
    known = targets(folder)
    names = list(known)
    weights = [WEIGHTS.get(name, 1.0) for name in names]
    rng = random.Random(seed)  # noqa: S311 - no secret
    outcomes: Counter[str] = Counter()
    seen: Counter[str] = Counter()
    signal.signal(signal.SIGALRM, _alarm)
    with log.open("w", encoding="utf-8") as file:
        for number in range(inputs):
            name = rng.choices(names, weights)[0]
            content, mutate, read = known[name]
            mutated = mutate(content, rng)
            found, trace = try_here(read, mutated)
            if name in COMMANDS and rng.random() < commands * 2:
                outcome, words = try_command(folder, COMMANDS[name])
                outcomes["command " + outcome] += 1
                if words:
                    found, trace = outcome, words
            with contextlib.suppress(IQAError, OSError):
                read(content)  # the whole input again, for the others that need it
            outcomes[found] += 1
            if number % 500 == 499:  # of a run that is stopped it is known how far it came
                file.write(f"{number + 1} inputs: {dict(outcomes)}\n")
                file.flush()
            if trace:
                last = trace.strip().splitlines()
                where = next((line.strip() for line in reversed(last) if line.strip().startswith("File")), "")
                kind = f"{name}: {last[-1][:100]} at {where}"
                seen[kind] += 1
                if seen[kind] <= 2:
                    file.write(f"--- input {number} ({found}) {kind}\n{mutated[:300]!r}\n{trace[-3000:]}\n")
                    file.flush()
        for kind, count in seen.most_common():
            file.write(f"{count:6} {kind}\n")
    return outcomes


def main() -> int:
    """Fuzz and print one line; 1 if there was a fault."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--inputs", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--commands", type=float, default=0.01, help="Share that goes through the command line."
    )
    parser.add_argument("--log", type=Path, default=Path("fuzz.log"))
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        os.environ["IQA_HARNESS_CACHE"] = str(folder / "cache")
        outcomes = fuzz(arguments.inputs, arguments.seed, folder, arguments.log, commands=arguments.commands)
    bad = outcomes["fault"] + outcomes["hang"]
    shown = ", ".join(f"{count} {what}" for what, count in sorted(outcomes.items()))
    print(f"{arguments.inputs} inputs, seed {arguments.seed}: {bad} faults ({shown}), "  # noqa: T201
          f"{time.monotonic() - begun:.0f} s")  # fmt: skip
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
