"""HyperIQA and SMART-IQA; importing this package registers their models."""

from iqa_models.hyper.convert import ImportReport, import_checkpoint
from iqa_models.hyper.fusion import Fusion
from iqa_models.hyper.head import HeadTrace, HyperHead
from iqa_models.hyper.hyper_network import HyperNetwork
from iqa_models.hyper.hyperiqa import hyperiqa
from iqa_models.hyper.lda import LocalDistortionAware
from iqa_models.hyper.model import Explanation, HyperQuality
from iqa_models.hyper.smart import smart_iqa_base, smart_iqa_small, smart_iqa_tiny
from iqa_models.hyper.target_network import target_network

__all__ = [
    "Explanation",
    "Fusion",
    "HeadTrace",
    "HyperHead",
    "HyperNetwork",
    "HyperQuality",
    "ImportReport",
    "LocalDistortionAware",
    "hyperiqa",
    "import_checkpoint",
    "smart_iqa_base",
    "smart_iqa_small",
    "smart_iqa_tiny",
    "target_network",
]
