"""Frames and evaluations: what the first edition wrote is read, since names, types and null are the same."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest

from iqa_harness.evaluation.store import EVALUATION_SCHEMA, SCORE_SCHEMA
from iqa_reports import FRAMES

FIRST_EDITION = json.loads(
    (Path(__file__).parents[1] / "results" / "first_edition" / "schemas.json").read_text(encoding="utf-8")
)
NOW = {f"frame {name}": schema.arrow for name, schema in FRAMES.items()}
NOW |= {"evaluation": EVALUATION_SCHEMA, "score": SCORE_SCHEMA}


@pytest.mark.parametrize("name", NOW)
def test_the_columns_are_those_of_the_first_edition(name: str) -> None:
    """Every column is there, of its type, null where it was; and none is without a meaning."""
    found: pa.Schema = NOW[name]
    assert [[f.name, str(f.type), f.nullable] for f in found] == FIRST_EDITION[name]["fields"]
    metadata = {k.decode(): v.decode() for k, v in (found.metadata or {}).items()}
    assert metadata == FIRST_EDITION[name]["metadata"]
    assert all(f.metadata[b"doc"] for f in found)
