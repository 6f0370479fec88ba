"""The queries of results/README.md: one question to the rows of a store, three tools, one answer."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from iqa_results import ResultStore

README = Path(__file__).parents[2] / "results" / "README.md"
TOOLS = ("pandas", "duckdb", "polars")


@pytest.fixture
def expected(tmp_path: Path, rows: list[dict[str, Any]]) -> dict[tuple[str, str, float], float]:
    """Mean drift by model, attack and radius of a store in `tmp_path`, computed by hand."""
    store, drifts = ResultStore(tmp_path), defaultdict(list)
    for place, (model, attack) in enumerate((("m", "pgd"), ("m", "clean"), ("n", "pgd"))):
        key = str(place) * 64
        own = [
            {
                **row,
                "cell": key,
                "model": model,
                "attack": attack,
                "epsilon": 0.25 * (i % 2),
                "final": i % 5 > 0,
            }
            for i, row in enumerate(rows)
        ]
        store.write_cell(key, own)
        for row in own:
            if row["final"] and attack != "clean":
                drift = abs(row["adv_score"] - row["clean_score"])
                drifts[model, attack, row["epsilon"]].append(drift)
    return {group: sum(values) / len(values) for group, values in drifts.items()}


@pytest.mark.parametrize("tool", TOOLS)
def test_the_readmes_queries_agree(
    tool: str,
    tmp_path: Path,
    expected: dict[tuple[str, str, float], float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Run as it stands in the folder of a store, each query gives the mean computed by hand."""
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    query = next(block for block in blocks if f"import {tool}" in block and "answer" in block)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(query, names)  # noqa: S102  our own README
    answer = names["answer"]
    records = answer.to_dicts() if tool == "polars" else answer.to_dict("records")
    found = {(r["model"], r["attack"], r["epsilon"]): r["drift"] for r in records}
    assert list(found) == sorted(expected)
    assert found == pytest.approx(expected)
