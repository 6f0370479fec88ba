"""Confusion table: every flag on every planted cheat and on honest models.

    python tests/benchmarks/bench_flags.py [--images 8] [--data smoke] [--model LABEL=...]

Each model runs the same small suite; a model that no number can be made of is judged by its checks. Prints
one line a model and the flags raised, and exits with 1 if a cheat is missed or an honest model is flagged.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import torch

from iqa_harness.cells.compute import to_tensor
from iqa_harness.cells.plan import plan
from iqa_harness.data import open_data
from iqa_harness.entrants.naming import load_entrant, parse_model
from iqa_harness.errors import RunError
from iqa_harness.evidence.flags import verdict_of
from iqa_harness.evidence.judgement import flags_of_checks
from iqa_harness.evidence.model_checks import check_model
from iqa_harness.running.manifest import RunConfig
from iqa_harness.running.run import run_suite
from iqa_harness.tables.robustness import robustness_table
from iqa_models import CHEATS
from iqa_results import ResultStore
from iqa_suites import parse_suite

SUITE = """
name = "flags"
summary = "what the flags need, small"
seed = 0
main_epsilon = "1/255"
suite_min = ["pgd/mse", "pgd/drift"]
step_sweep = "pgd"
cell_images = 8
[data]
name = "{data}"
images = {images}
[[attacks]]
name = "fgsm"
kind = "fgsm"
epsilons = ["1/255"]
objectives = ["raise", "lower"]
[[attacks]]
name = "noise"
kind = "noise"
epsilons = ["1/255"]
objectives = ["raise", "lower"]
samples = 4
[[attacks]]
name = "pgd"
kind = "pgd"
epsilons = ["1/255", "2/255"]
objectives = ["mse", "drift", "raise", "lower"]
steps = 10
report_steps = [1]
report_epsilons = ["1/255"]
relative_step_size = 0.25
"""

HONEST = [
    "cheat_none",
    "linear",
    "hyperiqa=hyperiqa?protocol=centre",
    "srm=srm_efficientnet_lite0",
]


def judge(argument: str, data: str, images: int) -> tuple[str, list[str], str]:
    """Return a model's verdict, raised flags and where they come from."""
    entrant = load_entrant(parse_model(argument))
    suite = parse_suite(SUITE.format(data=data, images=images), "flags")
    work = plan(suite, [entrant], open_data(data, cache_dir=None, mos_range=None))
    with tempfile.TemporaryDirectory() as folder:
        store = ResultStore(Path(folder))
        try:
            manifest = run_suite(work, [entrant], RunConfig("flags", ""), store)
        except RunError:
            pixels = [to_tensor(work.images.read(i), "cpu") for i in range(4)]
            flags = flags_of_checks(check_model(entrant.model, pixels))
            return (*verdict_of(flags), "refused before the run")
        table = robustness_table(store, manifest, resamples=50)
        rows = table.flags.to_pylist()
        verdict = table.table.to_pylist()[0]["verdict"]
        failed = [c.error for c in manifest.cells if c.error]
        where = failed[0].split("\n")[0] if failed else f"{len(rows)} flags on {images} images"
        return verdict, [row["flag"] for row in rows if row["raised"]], where


def say(line: str) -> None:
    """Print a line now."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--data", default="smoke")
    parser.add_argument("--model", action="append", default=[], help="another honest model")
    parser.add_argument("--honest", nargs="*", default=HONEST)
    parser.add_argument("--only", nargs="*")
    given = parser.parse_args()
    torch.set_num_threads(1)
    missed = false = 0
    say("| model | meant | verdict | raised | |\n|---|---|---|---|---|")
    for name in [*CHEATS, *given.honest, *given.model]:
        if given.only and parse_model(name).label not in given.only:
            continue
        started = time.perf_counter()
        verdict, raised, where = judge(name, given.data, given.images)
        meant = CHEATS.get(name)
        right = meant in raised if meant else not raised
        missed += bool(meant) and not right
        false += not meant and not right
        mark = "ok" if right else "WRONG"
        label = parse_model(name).label
        say(
            f"| {label} | {meant or 'none'} | {verdict} | {', '.join(raised) or 'none'} | {mark}, {where}, "
            f"{time.perf_counter() - started:.0f} s |"
        )
    say(f"\n{missed} planted cheats missed, {false} honest models flagged")
    sys.exit(1 if missed or false else 0)


if __name__ == "__main__":
    main()
