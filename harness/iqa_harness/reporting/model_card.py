"""The page of a checkpoint for readers elsewhere: what its card says, and how robust it was found to be."""

from __future__ import annotations

import json
from collections.abc import Sequence

from iqa_models.checkpoint import CheckpointCard
from iqa_reports import Report
from iqa_reports.formats.markdown import escape
from iqa_reports.leaderboard import leaderboard_markdown

_FRONT = """\
---
library_name: iqa-harness
tags:
- image-quality-assessment
- no-reference
- adversarial-robustness
{index}---
"""
_USE = "iqa-harness models pull PLACE --out {name}   # PLACE: this folder, or hf://ORG/NAME\n"


def model_page(
    card: CheckpointCard, found: Report | None = None, labels: Sequence[str] = (), index: str = ""
) -> str:
    """Return a page in Markdown, with front matter that Hugging Face takes.

    Args:
        card: of the checkpoint.
        found: a report of runs with this model among others.
        labels: what the model is called there.
        index: the `model-index` of it as YAML, for the front matter.
    """
    spec = card.model
    rows: dict[str, object] = {
        **spec.model_dump(mode="json", exclude={"summary", "notes"}),
        "weights_sha256": card.weights_sha256,
        **({"trunk's weights": f"not here: {card.trunk_from}"} if card.trunk_from else {}),
        # Tables, logs and marks of pixels stand in card.json; a page has room for what is one short value.
        **{
            f"training: {key}": value
            for key, value in card.training.items()
            if isinstance(value, str | int | float) and key != "pixels"
        },
    }
    cells = {k: v if isinstance(v, str) else json.dumps(v) for k, v in rows.items()}
    table = "\n".join(["| | |", "|---|---|", *(f"| {escape(k)} | {escape(v)} |" for k, v in cells.items())])
    use = _USE.format(name=spec.name) + f"iqa-harness score ./{spec.name} image.png\n"
    parts = [
        f"{_FRONT.format(index=index)}\n# {escape(spec.name)}: {escape(spec.summary)}",
        "A no-reference image quality model: RGB pixels in [0, 1] in, one score an image out.",
        table,
        *(f"> {escape(note)}" for note in spec.notes),
        f"```\n{use}```",
    ]
    if found is None:
        parts.append("Its robustness against attack is not told here.")
    else:
        parts.append(f"Below, this model is {escape(' or '.join(labels))}.")
        parts.append(leaderboard_markdown(found).replace("# Leaderboard", "# Robustness against attack", 1))
    return "\n\n".join(parts).rstrip() + "\n"
