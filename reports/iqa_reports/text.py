"""How values and facts of a run are worded, the same in every format."""

from __future__ import annotations

import math
import re
from collections import Counter
from typing import Any

from iqa_errors.toml_text import read_toml
from iqa_results import ModelRecord, RunManifest

MINUS = "\N{MINUS SIGN}"
DASH = "\N{EM DASH}"


_HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def visible(words: str) -> str:
    """Return words without what a terminal obeys and no page may hold: control signs, lone surrogates."""
    return _HIDDEN.sub("\N{REPLACEMENT CHARACTER}", words)


def number(value: float, digits: int = 3) -> str:
    """Write a correlation with some decimals and a true minus sign; no minus before zero."""
    text = f"{value:.{digits}f}"
    if float(text) == 0:
        text = text.removeprefix("-")
    return text.replace("-", MINUS)


def signed(value: float) -> str:
    """Write a difference with its sign."""
    text = number(value)
    return f"+{text}" if float(f"{value:.3f}") > 0 else text


def interval(low: float, high: float, digits: int = 3) -> str:
    """Write an interval."""
    return f"[{number(low, digits)}, {number(high, digits)}]"


def radius(epsilon: float) -> str:
    """Write a radius in grey levels of 8 bits where it is quarters of them: 2/255, 0.5/255, else as it is."""
    levels = epsilon * 255
    if levels < 255:  # a manifest may hold any number, 1e308 too
        quarters = round(levels * 4) / 4
        if math.isclose(levels, quarters, rel_tol=1e-6):
            return f"{quarters:g}/255"
    return f"{epsilon:.4g}"


def count(amount: int, thing: str) -> str:
    """Write an amount with its noun: 1 cell, 2,000 cells."""
    return f"{amount:,} {thing}{'' if amount == 1 else 's'}"


def labels(manifest: RunManifest) -> str:
    """Say what the labels are."""
    if manifest.data.label == "pseudo-MOS":
        return "labels are pseudo-MOS, computed and not given by people"
    return "labels are MOS"


def setting(manifest: RunManifest) -> str:
    """Say what was evaluated: it ends every caption, so that a table copied alone still says it."""
    data = manifest.data
    return f"Data {data.name}, {data.split} split, {count(data.images, 'image')}; {labels(manifest)}."


def warning(manifest: RunManifest) -> str | None:
    """Say what the values must not be taken for; None for a complete run of all images of a usual suite."""
    caveat = suite_caveat(manifest)
    sentences = [f"The suite {manifest.suite} says of itself: {caveat}."] if caveat else []
    if manifest.data.selection:
        sentences.append(f"Computed from {manifest.data.selection}: not the suite's numbers.")
    if manifest.status != "complete":
        sentences.append(_incomplete(manifest))
    return " ".join(sentences) or None


def suite_of(manifest: RunManifest) -> dict[str, Any]:
    """Return a run's suite as its text says it, empty if that is no TOML: it is shown, never relied on."""
    try:
        return read_toml(manifest.suite_text)
    except ValueError:
        return {}


def suite_summary(manifest: RunManifest) -> str:
    """Return the line that a run's suite says about itself, '' if it says none."""
    summary = suite_of(manifest).get("summary")
    return summary if isinstance(summary, str) else ""


def suite_caveat(manifest: RunManifest) -> str:
    """Return what a suite says it is not for ("not for conclusions"), '' if it says nothing of the kind."""
    last = suite_summary(manifest).rpartition(";")[2].strip()
    return last if last.startswith("not for ") else ""


def _incomplete(manifest: RunManifest) -> str:
    states = Counter(cell.status for cell in manifest.cells)
    return (
        f"This run is not complete (status: {manifest.status}). {states['missing']:,} of "
        f"{count(len(manifest.cells), 'cell')} missing, {states['failed']:,} failed. "
        "Values below come from the cells that are done."
    )


def reading(manifest: RunManifest) -> list[str]:
    """Say how the leaderboard is read."""
    members = ", ".join(manifest.suite_min) or "no member"
    transfer = (
        ""
        if any("transfer" in member for member in manifest.suite_min)
        else " No transfer attack is among them: it is the minimum over attacks on the model itself."
    )
    defended = (
        " Of a defended model it is also over what the same attacks found on the undefended one."
        if any(model.bare is not None for model in manifest.models)
        else ""
    )
    return [
        f"suite_min is the lowest value among {members}, each attack over the whole set, at one radius."
        f"{transfer}{defended}",
        "Models that are not told apart share a rank: it is one more than the number of models told apart "
        "as better. In brackets are all places the model may have, up to what the number told apart as worse "
        "leaves. All brackets of a table hold at once with 95 %, whatever its number of pairs; suspect "
        "models are put last and ranked among themselves.",
        "composed lets the adversary choose for every image, among all admissible images that any attack "
        "found for it (the clean one included), the one that makes the value over the set lowest; it is "
        "found by a search, so the true worst case may be lower still.",
        f"Models are ranked by suite_min SROCC at ε = {radius(manifest.main_epsilon)}, highest first, "
        "suspect ones after all others. Brackets are 95 % bootstrap intervals, over the contents the images "
        "show if there are at least 5, else over images: where they overlap, the order is not settled. A "
        "dagger marks a value that is not told apart from the best of its column on the same images.",
        "Drop is the value minus the clean value of the same images; 8-bit is the value after rounding the "
        "attacked images to 8 bits a channel. Bold is the best of a column, "
        "of models that are not suspect.",
    ]


TERMS = (
    ("SROCC", "Spearman's rank correlation of scores and labels: 1 the same order, 0 none, −1 reversed."),
    ("PLCC", "Pearson's correlation, after a logistic curve was fitted on clean scores of other images."),
    ("ε", "The radius: how far an attack may change each pixel (norm inf), or all together (norm 2)."),
    ("clean", "The value on the images as they are, without any attack."),
    ("suite_min", "The value under whichever one attack of the suite lowers it most."),
    ("composed", "The value when the adversary takes for every image the attack that does most harm."),
    ("closed_loop", "The same, with an attack that pushes each image to where the whole set loses most."),
    ("drop", "The value minus the clean one: how much the attack took."),
    ("8-bit", "The value after attacked images are rounded to whole grey levels, as a file holds them."),
    ("[low, high]", "A 95 % interval: other images of this kind would mostly give a value in it."),
    ("#", "The rank by suite_min, and the ranks that other images of this kind might give, all at once."),
    ("†", "Not told apart from the best: the difference on the same images may be zero."),
    ("sound", "No flag speaks against the numbers."),
    ("suspect", "A stronger attack probably exists, or the number says little."),
    ("incomplete", "A part that counts was not computed."),
    ("invalid", "The attack, or the score itself, did not take place as the table claims."),
    ("checks", "What was tested on each model before it was attacked, such as one score for one image."),
    ("gradients, seconds", "What attacking one image took, all attacks and radii together."),
    ("pseudo-MOS", "Labels that were computed, not given by people."),
)  # fmt: skip
"""Every term of the leaderboard with a word of explanation."""


def checks(record: ModelRecord) -> str:
    """Say in a few words whether a model passed the checks made before any attack."""
    if not record.checks:
        return "not recorded"
    failed = [name for name, check in record.checks.items() if not check["passed"]]
    if not failed:
        return f"all {len(record.checks)} checks passed"
    return f"{len(failed)} of {len(record.checks)} failed: {', '.join(failed)}"


def provenance(manifest: RunManifest, origin: str = "") -> list[tuple[str, str]]:
    """Return what is needed to make the run again, as (name, value); `origin` names its store."""
    made = manifest.provenance
    commit = "installed package, no checkout" if made.commit is None else made.commit
    if made.dirty:
        commit += ", with uncommitted changes"
    facts = [
        ("Run", f"{manifest.run}, {manifest.status}"),
        ("Started, ended (UTC)", f"{manifest.started}, {manifest.ended or 'still running'}"),
        ("Suite", f"{manifest.suite}, sha256 {manifest.suite_sha256}"),
        (
            "Data",
            f"{manifest.data.name}, {manifest.data.split} split, {count(manifest.data.images, 'image')}, "
            f"{manifest.data.label}, sha256 {manifest.data.sha256}",
        ),
        ("Seed", str(manifest.seed)),
        (
            "Cost",
            f"{count(manifest.forwards, 'forward')}, of them {manifest.backwards:,} with a gradient; "
            f"{manifest.seconds:,.0f} s in attacks",
        ),
        ("Device", f"{made.device}, {count(made.threads, 'thread')}"),
        ("Computed by", _workers(manifest)),
        ("Platform", f"{made.platform}, Python {made.python}"),
        ("Packages", ", ".join(f"{name} {made.packages[name]}" for name in sorted(made.packages))),
        ("Commit of the harness", commit),
        (
            "In the result store",
            f"runs/{manifest.run}/table.parquet (these values), runs/{manifest.run}/intervals.parquet, "
            f"runs/{manifest.run}/manifest.json; rows an image in cells/*/*.parquet",
        ),
    ]
    if origin:
        facts.append(("Read from", origin))
    facts += [(f"Model {m.name}", f"{m.checkpoint or 'by name'}, sha256 {m.sha256}") for m in manifest.models]
    return [(name, words) for name, words in facts if words]


def _workers(manifest: RunManifest) -> str:
    """Say which workers computed the cells, alike ones together; '' if none is recorded."""
    kinds = Counter((w.executor, w.device_name or w.device) for w in manifest.workers)
    return "; ".join(f"{count(n, 'worker')} ({how}) on {what}" for (how, what), n in sorted(kinds.items()))
