"""A run made in a store, and its tables made anew: what tests of verification change."""

from __future__ import annotations

from iqa_harness.cells.plan import plan
from iqa_harness.entrants.entrant import Entrant
from iqa_harness.running.manifest import RunConfig
from iqa_harness.running.run import run_suite
from iqa_harness.tables.robustness import robustness_table
from iqa_models import create_model
from iqa_results import ResultStore
from iqa_suites import parse_suite

SMALL = """
name = "small"
summary = "one attack in one cell"
seed = 3
main_epsilon = "4/255"
suite_min = ["pgd/raise", "pgd/pairwise_inversion"]
step_sweep = "pgd"
jpeg_qualities = [80]
cell_images = 4

[data]
name = "small"
images = 4

[[attacks]]
name = "pgd"
kind = "pgd"
epsilons = ["4/255"]
objectives = ["raise", "pairwise_inversion"]
steps = 2
report_steps = [1]
relative_step_size = 0.6
batch = 4
"""


def made(folder, text, images, models):
    """Return store, manifest and entrants of a finished run of models (label, name, options)."""
    entrants = [Entrant(label, create_model(name, **options)) for label, name, options in models]
    store = ResultStore(folder)
    work = plan(parse_suite(text, "suite"), entrants, images)
    manifest = run_suite(work, entrants, RunConfig("r", text), store)
    robustness_table(store, manifest).write(store, "r")
    return store, manifest, entrants


def retabled(store, manifest):
    """Write the tables anew: a liar does not forget them."""
    robustness_table(store, manifest).write(store, manifest.run)
