"""HyperIQA and SMART-IQA; their modules register the models."""

from iqa_models.hyper.convert import ImportReport, import_checkpoint
from iqa_models.hyper.head import HyperHead
from iqa_models.hyper.lda import LocalDistortionAware
from iqa_models.hyper.model import HyperQuality
from iqa_models.hyper.target_network import target_network

__all__ = [
    "HyperHead",
    "HyperQuality",
    "ImportReport",
    "LocalDistortionAware",
    "import_checkpoint",
    "target_network",
]
