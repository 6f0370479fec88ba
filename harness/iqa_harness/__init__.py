"""Measure how robust no-reference image quality models are against adversarial attack.

The verbs of the command line as functions; importing this package loads none of the heavy libraries::

    import iqa_harness as iqa

    run = iqa.attack("smoke", {"mine": iqa.wrap(module, score_range=(0, 100)), "linear": "linear"})
    run.table, run.verdicts
"""

from __future__ import annotations

import importlib
from typing import Any

_PLACES = {
    "Run": "api.run",
    "Runtime": "machine.runtime",
    "attack": "api.attack",
    **dict.fromkeys(("gate", "calibrate", "save_baseline", "show_baseline", "diff_baselines"), "api.gate"),
    **dict.fromkeys(("certify", "certify_run"), "api.certify"),
    "demo": "api.demo",
    "explain": "api.verify",
    **dict.fromkeys(("list_runs", "show_run", "check_store", "export_run"), "api.runs"),
    **dict.fromkeys(("merge_runs", "collect_garbage"), "api.runs"),
    "leaderboard": "api.report",
    "load_run": "api.attack",
    "plan": "api.attack",
    "report": "api.report",
    "verify": "api.verify",
    **dict.fromkeys(("train", "show_training"), "api.train"),
    **dict.fromkeys(("study", "show_study", "list_studies"), "api.study"),
    "evaluate": "api.evaluate",
    "score": "api.score",
    "diagnose": "api.diagnose",
    "power": "api.power",
    "profile": "api.profile",
    **dict.fromkeys(("list_models", "show_model", "check_model", "import_model"), "api.models"),
    **dict.fromkeys(("push_model", "pull_model"), "api.hub"),
    **dict.fromkeys(("list_suites", "show_suite", "validate_suite", "build_suite"), "api.suites"),
    **dict.fromkeys(("list_data", "describe_data", "prepare_data", "check_data", "pixel_cache"), "api.data"),
    "export_data": "api.data",
    "ArrayImageSet": "data",
    "open_data": "data",
    "defend": "iqa_attacks.defences.defended",
    "wrap": "iqa_models",
    "HarnessError": "errors",
    "IQAError": "errors",
}
"""Where each exported name stands: a module of this package, or another package."""

__all__ = sorted(_PLACES)  # noqa: PLE0605 - read from the one table of them


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    place = _PLACES[name]
    return getattr(
        importlib.import_module(place if place.startswith("iqa_") else f"{__name__}.{place}"), name
    )


def __dir__() -> list[str]:
    return sorted({*globals(), *_PLACES})
