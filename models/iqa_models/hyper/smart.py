"""SMART-IQA: Swin Transformer, attention over its stages, and HyperIQA's head."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from iqa_models.errors import BadModelOption
from iqa_models.hyper.fusion import ATTENTION_HIDDEN
from iqa_models.hyper.model import Family, Given, HyperQuality, build_hyper
from iqa_models.registry import register_model, takes

HIDDEN = (512, 256)
"""Widths of the first two 1x1 convolutions of the hyper-network."""

GIVEN = Given("random_crops:20:0", None, score_range=(0.0, 100.0))
"""What the other options are by default: twenty random crops an image as in the authors' evaluation, here
fixed by a seed, and the labels of KonIQ-10k."""

SOURCE = (
    "Chen, SMART-IQA: Swin Multi-scale Attention-guided Regression Transformer for Blind Image Quality "
    "Assessment; where paper and author's code differ, the code"
)


NOTES = (
    "re-implemented from a description; the author's code and the trunk's weights are MIT",
    "the resize to 512 high x 384 wide, as in the author's code, makes landscape images portrait",
    "paper and code differ in fusion, attention and target network; the code is the default",
)


class Size(NamedTuple):
    """What differs between the sizes of SMART-IQA."""

    trunk: str
    """timm's name of the Swin Transformer."""
    weights: str
    """Tag of its weights that the author's runs resolved to."""
    drop_path: float
    """Largest drop-path rate of the published run; the rate rises linearly from 0 over the blocks."""
    dropout: float
    """Dropout of the head in the published run."""


SIZES = {
    "smart_iqa_tiny": Size("swin_tiny_patch4_window7_224", "ms_in1k", 0.2, 0.3),
    "smart_iqa_small": Size("swin_small_patch4_window7_224", "ms_in22k_ft_in1k", 0.25, 0.35),
    "smart_iqa_base": Size("swin_base_patch4_window7_224", "ms_in22k_ft_in1k", 0.3, 0.4),
}
"""Model name to its size."""


def _register(name: str) -> Callable[..., HyperQuality]:
    size = SIZES[name]

    @takes(GIVEN)
    def build(
        *,
        fusion: str = "attention",
        afa: str = "concat",
        attention_activation: str = "softmax",
        attention_hidden: int = ATTENTION_HIDDEN,
        weights: str = size.weights,
        drop_path: float = size.drop_path,
        dropout: float = size.dropout,
        dynamic_size: bool = False,
        **given: Any,
    ) -> HyperQuality:
        """SMART-IQA on {trunk}: stages weighted by attention, then HyperIQA's head.

        Args:
            fusion: the hyper-network's input, the rows of the paper's ablation: ``attention`` (the full
                model), ``afa``, or ``last`` (backbone only).
            afa: ``concat``, or ``project512`` (the paper's text).
            attention_activation: ``softmax``, or ``sigmoid`` (the paper's text).
            attention_hidden: hidden width of the attention.
            weights: timm's tag of the trunk's weights, such as ``ms_in22k_ft_in1k``.
            drop_path: largest drop-path rate, in training.
            dropout: of the head, in training.
            dynamic_size: let native images have any sides that are multiples of 32.
            **given: `Given`.

        Raises:
            BadModelOption: an option's value is refused.
            MissingWeights: pretrained weights are neither cached nor reachable.
            BadCheckpoint: a file of backbone weights does not fit.
        """
        if not 0 <= drop_path < 1:
            raise BadModelOption(f"{name}: drop_path must lie in [0, 1), not {drop_path!r}")
        family = Family(
            name=name,
            tag=f"{size.trunk}.{weights}",
            hidden=HIDDEN,
            trunk={"drop_path_rate": drop_path, "strict_img_size": not dynamic_size},
            multiple=32 if dynamic_size else None,
            options={"weights": weights, "drop_path": drop_path, "dynamic_size": dynamic_size},
            summary=f"Swin {name.rsplit('_', 1)[1]}, fusion {fusion!r}, with HyperIQA's hyper-network",
            source=SOURCE,
            notes=NOTES,
        )
        head = {
            "fusion": fusion,
            "afa": afa,
            "attention_activation": attention_activation,
            "attention_hidden": attention_hidden,
            "dropout": dropout,
        }
        return build_hyper(family, head, GIVEN._replace(**given))

    build.__name__ = build.__qualname__ = name
    build.__doc__ = (build.__doc__ or "").format(trunk=size.trunk)
    return register_model(name, random_head=True)(build)


smart_iqa_tiny = _register("smart_iqa_tiny")
smart_iqa_small = _register("smart_iqa_small")
smart_iqa_base = _register("smart_iqa_base")
