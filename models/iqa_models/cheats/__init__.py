"""Planted cheats: models that look robust and are not, each made for one flag of the harness."""

from iqa_models.cheats.base import CHEATS

__all__ = ["CHEATS"]
