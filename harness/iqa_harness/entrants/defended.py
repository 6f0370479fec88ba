"""A model under test behind defences: how it is written, and the undefended one that stands beside it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from iqa_attacks.defences.defended import Defended, defend
from iqa_harness.entrants.entrant import Entrant
from iqa_harness.entrants.foreign import foreign_argument
from iqa_models import QualityModel

_LAST = re.compile(r"(?s)(.+)\|\s*([a-z_]+(?::[-+.,\w]*)?)\s*")
"""A text that ends like a defence: a word, numbers behind a colon. A shell's pipe has blanks or a path."""


def split_defences(text: str) -> tuple[str, str]:
    """Return words after ``--model`` without the defences at their end, and these as `defend` reads them."""
    defences: list[str] = []
    while (found := _LAST.fullmatch(text)) is not None and not is_folder(text):
        text, last = found.groups()
        defences.insert(0, last)
    return text, "|".join(defences)


def is_folder(text: str) -> bool:
    """Whether a text names a folder that exists; only a path with a slash does."""
    try:
        return "/" in text and Path(text).is_dir()
    except (OSError, ValueError):  # too long for a path, or a byte that no path holds
        return False


def defences_of(model: QualityModel) -> str:
    """Return the defences before a model as `defend` reads them, '' for a model without."""
    return model.text if isinstance(model, Defended) else ""


def behind(entrant: Entrant, defences: str, label: str | None = None) -> Entrant:
    """Return an entrant behind defences, itself where there are none.

    Args:
        entrant: the model under its own name.
        defences: as `defend` reads them.
        label: name of the defended one, None for the model's with the defences.

    Raises:
        AttackError: no such defence, or numbers that are not its own.
    """
    if not defences:
        return entrant
    model = defend(entrant.model, defences)
    argument = entrant.argument and f"{entrant.argument}|{model.text}"
    return replace(entrant, label=label or f"{entrant.label}|{model.text}", model=model, argument=argument)


def with_bare(entrants: Sequence[Entrant]) -> list[Entrant]:
    """Return entrants with, before each defended one, the model it defends, unless it is there already.

    Examples made against the undefended model are tried on the defended one, and its clean values are what
    the defence costs.
    """
    there = {entrant.sha256 for entrant in entrants}
    made: list[Entrant] = []
    for entrant in entrants:
        if isinstance(entrant.model, Defended):
            bare = _bare(entrant, entrant.model)
            if bare.sha256 not in there:
                there.add(bare.sha256)
                made.append(bare)
        made.append(entrant)
    return made


def bare_label(entrant: Entrant, entrants: Sequence[Entrant]) -> str | None:
    """Return the name of the entrant that another defends, None if it defends none of them."""
    if not isinstance(entrant.model, Defended):
        return None
    sha256 = _bare(entrant, entrant.model).sha256
    return next((other.label for other in entrants if other.sha256 == sha256), None)


def _bare(entrant: Entrant, model: Defended) -> Entrant:
    """Return the entrant that a defended one was made of, under the name it has by itself."""
    argument, label = None, model.bare.spec.name
    if entrant.argument is not None:
        argument, _ = split_defences(entrant.argument)
        label = entrant.label.removesuffix(f"|{model.text}")
        if label == entrant.label:  # it has a name of its own, which is not the model's
            argument = argument.removeprefix(f"{label}=")
            foreign = foreign_argument(argument)
            label = foreign[0] if foreign else argument.rpartition("/")[2]
    return replace(entrant, label=label, model=model.bare, argument=argument)
