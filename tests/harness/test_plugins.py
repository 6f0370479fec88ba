"""A user's Python file: what goes wrong in it is told with its line, and never passes for success."""

import sys

import pytest

from iqa_harness.entrants.plugins import run_plugin
from iqa_harness.errors import RunError


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("\nraise ValueError('no luck')\n", "line 2: ValueError: no luck"),
        ("import sys\nsys.exit(0)\n", "line 2: SystemExit: 0"),
        ("raise SystemExit('bye')\n", "line 1: SystemExit: bye"),
        ("x = 1\ny = 2\nz = = 3\n", "line 3: SyntaxError: invalid syntax"),
        ("def f():\n    raise ValueError('deep')\n\n\nf()\n", "line 2: ValueError: deep"),
        ("import json\n\njson.loads('{')\n", r"line 3 \(.*decoder.py, line \d+\): JSONDecodeError"),
        ("\nx = compile('1 +', 'inner', 'exec')\n", r"line 2 \(inner, line 1\): SyntaxError"),
    ],
)
def test_a_plugin_that_fails(tmp_path, text, words):
    """The line is the plugin's own; where the fault lies in another file, that is said as well."""
    file = tmp_path / "broken_one.py"
    file.write_text(text)
    for _ in range(2):  # it is not taken for run the second time
        with pytest.raises(RunError, match=rf"plugin .*broken_one\.py, {words}"):
            run_plugin(file)
        assert "iqa_plugin_broken_one" not in sys.modules


def test_an_imported_file_with_a_syntax_error_is_named(tmp_path, monkeypatch):
    """The plugin's line is that of the import, and the file at fault stands behind it."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "helper_of_the_plugin.py").write_text("a = 1\nb = (\n")
    (tmp_path / "mine.py").write_text("\n\nimport helper_of_the_plugin\n")
    with pytest.raises(RunError, match=r"line 3 \(.*helper_of_the_plugin\.py, line 2\): SyntaxError"):
        run_plugin(tmp_path / "mine.py")


def test_an_interrupt_is_passed_on(tmp_path):
    """Ctrl-C within a plugin ends the command as anywhere else."""
    (tmp_path / "slow.py").write_text("raise KeyboardInterrupt\n")
    with pytest.raises(KeyboardInterrupt):
        run_plugin(tmp_path / "slow.py")
