"""The Spectral Robustness Mixer; `builders` registers its models."""

from iqa_models.srm.ablations import ABLATIONS
from iqa_models.srm.attention import full_attention, nystroem_attention
from iqa_models.srm.config import SRMConfig, values_of_ours
from iqa_models.srm.diagnostics import DiagnosticRow
from iqa_models.srm.landmarks import choose_landmarks, leverage_scores
from iqa_models.srm.model import SRMQuality
from iqa_models.srm.neck import PlainNeck, SRMNeck
from iqa_models.srm.solve import solve_system

__all__ = [
    "ABLATIONS",
    "DiagnosticRow",
    "PlainNeck",
    "SRMConfig",
    "SRMNeck",
    "SRMQuality",
    "choose_landmarks",
    "full_attention",
    "leverage_scores",
    "nystroem_attention",
    "solve_system",
    "values_of_ours",
]
