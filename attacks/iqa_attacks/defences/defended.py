"""A model behind defences, in the forms an attacker who knows them chooses from."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Generator, Tensor, nn

from iqa_attacks.defences.steps import Defence, parse_defence
from iqa_attacks.images.jpeg import passing
from iqa_models import QualityModel, wrap
from iqa_models.protocols import scored_ahead

PASS = 8
"""Versions of images that the model behind is shown at once, where a defence makes several of one."""


class Defended(QualityModel):
    """A model that is shown what defences leave of an image.

    Scores are those of the images as they come out of the defences, in order. A defence that draws takes its
    draws from torch's global generator, or from one an image (`predict_drawn`). Gradients go through the
    defences, or (`unaware`) are those of the model behind at the image itself, as if there were no defence;
    scores are the same. Who follows both (`ways`) and keeps the better is no weaker than who knows of none.
    """

    unaware = False

    def __init__(self, model: QualityModel, defences: Sequence[Defence]) -> None:
        texts, bare = [defence.text for defence in defences], model.spec
        super().__init__(
            bare.replace(
                name="|".join([bare.name, *texts]),
                higher_is_better=True,  # the model behind has turned its score already
                is_stochastic=bare.is_stochastic or any(defence.random for defence in defences),
                input_protocol=", then ".join([*texts, bare.input_protocol]),
                notes=(*bare.notes, f"behind defences: {'|'.join(texts)}"),
            )
        )
        self.model, self.defences = model, tuple(defences)
        self.to(model._mean.device).eval()

    @property
    def text(self) -> str:
        """The defences in order, as `defend` reads them."""
        return "|".join(defence.text for defence in self.defences)

    @property
    def bare(self) -> QualityModel:
        """The model behind the defences."""
        return self.model.bare

    @property
    def stands_in(self) -> bool:
        """Whether a gradient is that of a stand-in for a defence without a slope of its own."""
        return not all(defence.exact for defence in self.defences)

    @property
    def ways(self) -> tuple[QualityModel, ...]:
        """This model with either gradient."""
        unaware = copy.copy(self)  # its weights are shared
        unaware.unaware = True
        return (self, unaware)

    @property
    def recordable(self) -> bool:
        """No: files are written by the host, draws are its own, and there are two gradients."""
        return False

    @property
    def draws_by_image(self) -> bool:
        """Whether all draws are the defences' own."""
        return self.is_stochastic and not self.bare.is_stochastic

    def predict(self, images: Tensor) -> Tensor:
        """Return scores (B,); draws come from torch's global generator, one image after the other."""
        return self._scores(images, [torch.default_generator] * len(images))

    def predict_drawn(self, images: Tensor, seeds: Sequence[int]) -> Tensor:
        """Return scores (B,), the draws of each image from its seed."""
        return self._scores(images, [Generator().manual_seed(seed) for seed in seeds])

    def _scores(self, images: Tensor, generators: Sequence[Generator]) -> Tensor:
        if not (self.unaware and images.requires_grad and torch.is_grad_enabled()):
            return self._behind(images, generators)
        with torch.no_grad():
            scores = self._behind(images.detach(), generators)
        return passing(scores, self.model.score_admitted(images))

    def _behind(self, images: Tensor, generators: Sequence[Generator]) -> Tensor:
        shown = images
        for defence in self.defences:
            shown = defence.apply(shown, generators)
            generators = [each for each in generators for _ in range(defence.copies)]
        if len(shown) <= max(PASS, len(images)):
            scores = self.model.score_admitted(shown)
        else:
            scores = scored_ahead(self.model.score_admitted, shown, PASS)
        for defence in reversed(self.defences):
            if defence.copies > 1:
                scores = defence.combine(scores.view(-1, defence.copies))
        return scores


def defend(model: QualityModel | nn.Module, defences: str, **card: object) -> Defended:
    """Put defences before a model.

    Args:
        model: a `QualityModel`, or what `iqa_models.wrap` makes one of; it is put into eval mode.
        defences: ``WORD[:NUMBERS]`` joined by ``|``, the first one nearest to the image.
        **card: for `wrap`, such as a score range.

    Raises:
        BadAttackOption: no such defence, or numbers that are not its own.
        ModelError: no model.
    """
    steps = [parse_defence(text) for text in defences.split("|")]
    inner = wrap(model, **card)  # type: ignore[arg-type]  # fields of a card
    if isinstance(inner, Defended):
        return Defended(inner.model, [*steps, *inner.defences])
    return Defended(inner, steps)
