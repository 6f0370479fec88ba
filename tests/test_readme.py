"""The README's Python runs as printed."""

import re
from pathlib import Path

import pytest

README = Path(__file__).resolve().parents[1] / "README.md"


@pytest.mark.slow
def test_the_python_of_the_readme_runs(tmp_path, monkeypatch, capsys):
    """A live module and a named model: a leaderboard, a comparison, a page."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("IQA_HARNESS_CACHE", str(tmp_path / "cache"))
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    exec(compile(code, str(README), "exec"), {"__name__": "readme"})  # noqa: S102 - the page under test
    out = capsys.readouterr().out
    assert "Leaderboard in SROCC" in out
    assert "mine" in out
    assert (tmp_path / "out" / "index.html").is_file()
    assert out.rstrip().endswith("out/index.html")
