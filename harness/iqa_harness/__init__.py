"""Measure how robust no-reference image quality models are against adversarial attack.

The verbs of the command line as functions; importing this package loads none of the heavy libraries::

    import iqa_harness as iqa

    run = iqa.attack("smoke", {"mine": iqa.wrap(module, score_range=(0, 100)), "linear": "linear"})
    run.table, run.verdicts
"""

from __future__ import annotations

import importlib
from typing import Any

_NAMES = {
    "api.run": ("Run",),
    "machine.runtime": ("Runtime",),
    "api.attack": ("attack", "load_run", "plan"),
    "api.gate": ("gate", "calibrate", "save_baseline", "show_baseline", "diff_baselines"),
    "api.certify": ("certify", "certify_run"),
    "api.demo": ("demo",),
    "api.verify": ("explain", "verify"),
    "api.runs": ("list_runs", "show_run", "check_store", "export_run", "merge_runs", "collect_garbage"),
    "api.report": ("leaderboard", "report"),
    "api.train": ("train", "show_training"),
    "api.study": ("study", "show_study", "list_studies"),
    "api.evaluate": ("evaluate",),
    "api.score": ("score",),
    "api.diagnose": ("diagnose",),
    "api.power": ("power",),
    "api.profile": ("profile",),
    "api.models": ("list_models", "show_model", "check_model", "import_model"),
    "api.hub": ("push_model", "pull_model"),
    "api.suites": ("list_suites", "show_suite", "validate_suite", "build_suite"),
    "api.data": ("list_data", "describe_data", "prepare_data", "check_data", "pixel_cache", "export_data"),
    "data": ("ArrayImageSet", "open_data"),
    "iqa_attacks.defences.defended": ("defend",),
    "iqa_models": ("wrap",),
    "errors": ("HarnessError", "IQAError"),
}
"""What each module of this package, or another package, exports."""
_PLACES = {name: place for place, names in _NAMES.items() for name in names}

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
