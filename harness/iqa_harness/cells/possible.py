"""Whether a suite can be run on some models and images at all."""

from __future__ import annotations

from collections.abc import Sequence

from iqa_attacks.images.similarity import WINDOW
from iqa_harness.data.image_set import ImageSet
from iqa_harness.entrants.entrant import Entrant
from iqa_harness.errors import DataError, RunError
from iqa_suites import Suite


def require_possible(suite: Suite, entrants: Sequence[Entrant]) -> None:
    """Refuse models that a suite cannot be run on.

    Raises:
        RunError: a stochastic one without EOT, or only one where the minimum needs the examples of others.
    """
    # Where the minimum does not hang on it, a transfer comes from whom there is.
    members = {member.partition("/")[0] for member in suite.suite_min}
    needed = any(transfer.name in members for transfer in suite.transfers)
    if needed and len(entrants) < 2:
        raise RunError(
            f"suite {suite.name!r} tries the examples of every model on every other one "
            f"({suite.transfers[0].name!r}): name at least two models with --model"
        )
    for entrant in entrants:
        if entrant.model.is_stochastic and suite.eot_samples is None:
            raise RunError(
                f"model {entrant.label!r} is stochastic: an attack must average its draws (EOT), or it would "
                f"overstate robustness; set eot_samples in suite {suite.name!r}"
            )


def require_sizes(entrants: Sequence[Entrant], images: ImageSet) -> None:
    """Refuse images that a model, or the similarity measured of every example, has no use for.

    What cannot be read is left to its cell, which fails alone.

    Raises:
        RunError: an image is too small, or of another size than a model's only one; it is named.
    """
    for i, record in enumerate(images.records):
        try:
            height, width = images.read(i).shape[:2]
        except DataError:
            continue
        wrong = f"SSIM needs at least {WINDOW} pixels a side" if min(height, width) < WINDOW else None
        for entrant in entrants:
            least, only = entrant.model.spec.min_size, entrant.model.spec.fixed_size
            if only is not None and (height, width) != (only, only):
                wrong = f"{entrant.label} takes {only} x {only} pixels only"
            elif min(height, width) < least:
                wrong = f"{entrant.label} needs at least {least} pixels a side"
        if wrong:
            raise RunError(
                f"image {record.image_id!r} is {height} high and {width} wide, but {wrong}; leave it out, or "
                "resize the images"
            )
