"""`diagnose` in Python: the file of the command."""

import pyarrow.parquet as pq
import pytest

from iqa_harness.api.diagnose import diagnose
from iqa_harness.errors import RunError

NECK = "srm?crop=64&shorter_side=64&width=32"
SMART = "smart_iqa_tiny?pretrained=false&crops=1"


def test_the_command_and_the_function_measure_the_same(cli, own, opened):
    """Equal files with equal context; the table holds their rows; an open set gives the same numbers."""
    line = ("diagnose", NECK, "--data", "own.csv", "--limit", "3", "--batch", "2", "--out", "a.parquet")
    code, out, err = cli(*line)
    assert code == 0, err
    found = diagnose(NECK, data="own.csv", limit=3, batch=2, out="b.parquet", progress=False)
    one, other = pq.read_table("a.parquet"), pq.read_table("b.parquet")
    assert one.equals(other, check_metadata=True)
    assert found.table.to_dict("records") == one.to_pylist()
    assert "kappa" in out
    assert [str(path) for path in found.files] == ["b.parquet"]
    assert diagnose(NECK, data=opened, limit=3, batch=2, progress=False).rows == found.rows
    assert "<table" in found._repr_html_()


@pytest.mark.parametrize(
    ("model", "options", "words"),
    [
        ("linear", {}, "neither an SRM neck nor SMART-IQA's attention"),
        (NECK, {"maps": 2, "out": "x.parquet"}, "stages of hyperiqa and smart_iqa"),
        (NECK, {"split": "none"}, "own: no images in split 'none'"),
    ],
)
def test_what_cannot_be_diagnosed(own, model, options, words):
    """One reason, and no file."""
    with pytest.raises(RunError, match=words):
        diagnose(model, data="own.csv", progress=False, **options)
    assert not list(own.glob("*.parquet"))
