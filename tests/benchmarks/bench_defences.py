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
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch
from scipy.stats import spearmanr
from torch import Tensor

import iqa_harness as iqa
from iqa_attacks import AttackResult, ThreatModel, create_attack, stored_score
from iqa_attacks.defences.defended import defend
from iqa_harness.cells.compute import to_tensor
from iqa_models import QualityModel, load_checkpoint
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
IMAGES, DRAWS = 12, 4


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


def transfers() -> Suite:
    """Return what of the suite blackbox needs gradients and tries examples on others."""
    suite = load_suite("blackbox").suite.model_dump(mode="json", by_alias=True, exclude_none=True)
    suite["attacks"] = [a for a in suite["attacks"] if a["kind"] in ("pgd", "transfer", "ensemble")]
    for attack in suite["attacks"]:
        if "objectives" in attack:
            attack["objectives"] = ["mse", "drift"]
    return Suite.model_validate({**suite, "suite_min": ["pgd/mse", "pgd/drift"], "step_sweep": None})


def defences(store: Path) -> None:
    """Print clean, unaware and adaptive SROCC of every wrapper on two models: the lower of mse and drift."""
    images = iqa.open_data("smoke").split("test")
    records = images.records[:IMAGES]
    pixels = [to_tensor(images.read(i), "cpu") for i in range(len(records))]
    ids, mos = [r.image_id for r in records], torch.tensor([r.mos for r in records], dtype=torch.float64)
    attack = create_attack(
        "pgd", threat=ThreatModel("inf", 2 / 255), objectives=("mse", "drift"), steps=10, step_size=0.5 / 255,
        eot_samples=DRAWS,
    )  # fmt: skip

    def srocc(model: QualityModel, shown: Sequence[Tensor]) -> float:
        draws = 2 * DRAWS if model.is_stochastic else None
        pairs = zip(shown, ids, strict=True)
        scores = [stored_score(model, x, seed=1, image_id=name, draws=draws) for x, name in pairs]
        return float(spearmanr(scores, mos.numpy()).statistic)

    def least(model: QualityModel, result: AttackResult) -> float:
        found = {(f.objective, f.image): f.example.pixels for f in result.found}
        each = [[found[objective, i] for i in range(len(pixels))] for objective in attack.objectives]
        return min(srocc(model, shown) for shown in each)

    say("| model | clean | defended | unaware | adaptive |")
    say("|---|---|---|---|---|")
    for name in ("lite", "mob"):
        bare = load_checkpoint(trained(store, name))
        unaware = attack.run(bare, pixels, ids, mos)
        say(f"| {name} | {srocc(bare, pixels):.3f} | | | {least(bare, unaware):.3f} |")
        for wrapper in WRAPPERS:
            model = defend(bare, wrapper)
            cells = [srocc(bare, pixels), srocc(model, pixels), least(model, unaware)]
            cells.append(min(cells[-1], least(model, attack.run(model, pixels, ids, mos))))
            say(f"| {name}, {wrapper} | {' | '.join(f'{value:.3f}' for value in cells)} |")


def ensemble(store: Path) -> None:
    """Print on every model the best single surrogate's examples, and those of the mean of the others."""
    models = {name: trained(store, name) for name in MODELS}
    run = iqa.attack(transfers(), models, data="smoke", run="ensemble", store=store)
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
