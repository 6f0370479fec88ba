"""What defences are worth, and what the mean of several surrogates is, on small models and 128-pixel images.

    python tests/benchmarks/bench_defences.py --store FOLDER [defences|ensemble]

Trains in seconds a model with ImageNet weights (lite) and others whose trunks are random (res, mob, res1),
all by ridge regression on their maps. `defences` attacks two of them behind every wrapper with and without
knowing of it; `ensemble` tries on each of the four the examples of every other and of the mean of those.
Prints Markdown. A second call on the same store computes nothing again.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pandas as pd

import iqa_harness as iqa
from iqa_suites import Suite, load_suite

PRESET = """
name = "{name}"
model = "{model}"
options = {options}
data = "smoke"
trunk = "frozen"
cache_maps = true
images_per_epoch = 256
crop = 128
flip = false
epochs = 1
lr_head = 5e-4
weight_decay = 0.05
head_start = "ridge"
"""
MODELS = {
    "lite": ("demo_lite0", '{ pretrained = "wheel", seed = 0 }'),
    "res": ("demo_resnet10t", "{ seed = 0 }"),
    "mob": ("timm_regressor", '{ backbone = "mobilenetv3_small_050", pretrained = "none", seed = 0 }'),
    "res1": ("demo_resnet10t", "{ seed = 1 }"),
}
WRAPPERS = (
    "jpeg:75", "median:3", "blur:1", "quantise:4", "resize_crop:0.9", "flip", "smooth:0.05,2",
)  # fmt: skip
IMAGES = 8


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def trained(store: Path, name: str) -> Path:
    """Return the checkpoint of one of MODELS, trained if it is not there."""
    folder = store / "models" / name
    if not (folder / "card.json").is_file():
        preset = store / f"{name}.toml"
        store.mkdir(parents=True, exist_ok=True)
        preset.write_text(PRESET.format(name=name, model=MODELS[name][0], options=MODELS[name][1]))
        iqa.train(str(preset), data="smoke", out=folder, store=store, progress=False)
    return folder


def small(name: str, kinds: tuple[str, ...]) -> Suite:
    """Return some attacks of a suite on a few images, with the objectives that its minimum is over."""
    suite = load_suite(name).suite.model_dump(mode="json", by_alias=True, exclude_none=True)
    suite["attacks"] = [a for a in suite["attacks"] if a["kind"] in kinds]
    for attack in suite["attacks"]:
        if "objectives" in attack:
            attack["objectives"] = ["mse", "drift"]
    minimum = ["pgd/mse", "pgd/drift"]
    return Suite.model_validate({**suite, "suite_min": minimum, "step_sweep": None})


def defences(store: Path) -> None:
    """Print clean, unaware and adaptive SROCC of every wrapper on two models."""
    names = [f"{trained(store, m)}|{w}" for m in ("lite", "mob") for w in WRAPPERS]
    run = iqa.attack(
        small("defences", ("pgd",)), names, data="smoke", limit=IMAGES, run="defences", store=store
    )  # fmt: skip
    values = run.table[(run.table["metric"] == "srocc") & run.table["final"]]
    clean = values[values["row"] == "clean"].set_index("model")["value"]
    say("| model | clean | defended | unaware | adaptive | drift: unaware | adaptive | verdict |")
    say("|---|---|---|---|---|---|---|---|")
    rows = run.rows(["model", "attack", "objective", "steps", "final", "clean_score", "adv_score"])
    rows["drift"] = (rows["adv_score"] - rows["clean_score"]).abs()
    drifts = rows[(rows["objective"] == "drift") & rows["final"]].groupby(["model", "attack"])["drift"].mean()
    for record in run.manifest.models:
        if record.bare is None:
            continue
        own = values[(values["model"] == record.name) & (values["row"] == "attack")]
        least = own.groupby("attack")["value"].min()
        cells = [clean[record.bare], clean[record.name], least[f"pgd:{record.bare}"], least["pgd"]]
        moved = [drifts[record.name, f"pgd:{record.bare}"], drifts[record.name, "pgd"]]
        shown = " | ".join(f"{value:.3f}" for value in (*cells, *moved))
        say(f"| {record.name} | {shown} | {run.verdicts[record.name]} |")


def ensemble(store: Path) -> None:
    """Print on every model the best single surrogate's examples, and those of the mean of the others."""
    suite = small("blackbox", ("pgd", "transfer", "ensemble"))
    models = {name: trained(store, name) for name in MODELS}
    run = iqa.attack(suite, models, data="smoke", run="ensemble", store=store)
    rows = run.rows(["model", "image_id", "attack", "objective", "final", "mos", "clean_score", "adv_score"])
    rows = rows[rows["final"] & (rows["objective"] == "mse")]
    rows["gain"] = (rows["adv_score"] - rows["mos"]) ** 2 - (rows["clean_score"] - rows["mos"]) ** 2
    gains = rows.groupby(["model", "attack"])["gain"].mean()
    values = run.table[(run.table["metric"] == "srocc") & run.table["final"]]
    srocc = values[values["objective"] == "mse"].set_index(["model", "attack"])["value"]
    clean = values[values["row"] == "clean"].set_index("model")["value"]
    say("| tried on | clean SROCC | best single surrogate | its gain | SROCC | gain of the mean | SROCC |")
    say("|---|---|---|---|---|---|---|")
    for name in models:
        single: pd.Series = gains[name].filter(like="transfer:")
        best = str(single.idxmax())
        say(
            f"| {name} | {clean[name]:.3f} | {best.partition(':')[2]} | {single.max():.4f} | "
            f"{srocc[name, best]:.3f} | {gains[name, 'ensemble']:.4f} | {srocc[name, 'ensemble']:.3f} |"
        )


def main() -> None:
    """Read the command line and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("what", choices=["defences", "ensemble"], nargs="*", default=["ensemble", "defences"])
    given = parser.parse_args()
    for what in given.what:
        {"defences": defences, "ensemble": ensemble}[what](given.store)


if __name__ == "__main__":
    main()
