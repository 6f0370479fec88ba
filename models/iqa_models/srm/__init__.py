"""The Spectral Robustness Mixer; importing this package registers its models."""

from iqa_models.srm.ablations import ABLATIONS
from iqa_models.srm.attention import full_attention, nystroem_attention
from iqa_models.srm.builders import (
    srm,
    srm_convnext_tiny,
    srm_efficientnet_lite0,
    srm_mobilenetv3_large,
    srm_pvt_v2_b2,
    srm_swin_tiny,
)
from iqa_models.srm.config import SRMConfig, values_of_ours
from iqa_models.srm.diagnostics import DiagnosticRow
from iqa_models.srm.landmarks import choose_landmarks, leverage_scores
from iqa_models.srm.model import ScoresAndLosses, SRMQuality
from iqa_models.srm.neck import NeckTrace, PlainNeck, SRMNeck
from iqa_models.srm.solve import solve_system

__all__ = [
    "ABLATIONS",
    "DiagnosticRow",
    "NeckTrace",
    "PlainNeck",
    "SRMConfig",
    "SRMNeck",
    "SRMQuality",
    "ScoresAndLosses",
    "choose_landmarks",
    "full_attention",
    "leverage_scores",
    "nystroem_attention",
    "solve_system",
    "srm",
    "srm_convnext_tiny",
    "srm_efficientnet_lite0",
    "srm_mobilenetv3_large",
    "srm_pvt_v2_b2",
    "srm_swin_tiny",
    "values_of_ours",
]
