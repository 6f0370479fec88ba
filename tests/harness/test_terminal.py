"""What every command has: an answer in JSON, quiet, defaults from a file and the environment, no colour."""

import inspect
import io
import json
import os
import sys
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import typer

from iqa_harness.cli import app
from iqa_harness.cli.command import Answer, plain_values
from iqa_harness.cli.defaults import SHARED, options_of

GROUP = typer.main.get_command(app)
OPTIONS = dict(options_of(GROUP))


@pytest.mark.parametrize("words", OPTIONS, ids=" ".join)
def test_every_command_has_an_answer_and_takes_json_and_quiet(words):
    """One place adds them: no command can lack one, and each says what it returns."""
    command = GROUP
    for word in words:
        command = command.commands[word]
    assert {"json", "quiet"} <= OPTIONS[words].keys()
    # typer's wrapper, ours, and the function as it is written
    written = inspect.unwrap(command.callback)
    assert inspect.signature(written, eval_str=True).return_annotation is Answer


@pytest.mark.parametrize(
    "line",
    [
        ("suites", "list"),
        ("suites", "show", "smoke"),
        ("suites", "validate", "smoke"),
        ("models", "list"),
        ("models", "show", "linear"),
        ("data", "list"),
        ("data", "info", "koniq10k"),
        ("data", "cache"),
        ("runs", "list"),
        ("runs", "gc"),
        ("study", "--list"),
        ("train", "demo_lite0", "--show"),
        ("verify", "--explain", "range_compressed"),
    ],
    ids=" ".join,
)
def test_json_is_all_that_is_printed(cli, line):
    """A program reads standard output whole; nothing else is on it, and with --quiet nothing beside it."""
    if "--explain" in line:
        from iqa_harness.evidence.flags import FLAGS

        line = (*line[:-1], next(iter(FLAGS)))
    code, out, err = cli(*line, "--json", "--quiet")
    assert code == 0
    assert json.loads(out) is not None
    assert err == ""
    assert cli(*line)[1] != out


class Pair(NamedTuple):
    a: float
    b: object


def test_plain_values():
    """Records become objects, tables lists of rows, what is no number null; nothing else is lost."""
    value = {
        ("m", 1): Pair(float("nan"), np.float64(0.5)),
        "table": pa.table({"x": [1, None]}),
        "frame": pd.DataFrame({"y": [1.5]}),
        "array": np.arange(2),
        "set": {"z"},
    }
    assert plain_values(value) == {
        "m 1": {"a": None, "b": 0.5},
        "table": [{"x": 1}, {"x": None}],
        "frame": [{"y": 1.5}],
        "array": [0, 1],
        "set": ["z"],
    }


def test_defaults_come_from_the_file_then_the_environment_then_the_flag(cli, tmp_path, monkeypatch):
    """Each wins over what stands before it, of one command over those of all."""

    def asked():
        return cli("runs", "list")[1].strip()

    file = tmp_path / "iqa-harness.toml"
    file.write_text('store = "all"\n')
    assert asked() == "no runs in all"
    file.write_text('store = "all"\n[runs.list]\nstore = "own"\n')
    assert asked() == "no runs in own"
    monkeypatch.setenv("IQA_HARNESS_STORE", "everywhere")
    assert asked() == "no runs in everywhere"
    monkeypatch.setenv("IQA_HARNESS_RUNS_LIST_STORE", "here")
    assert asked() == "no runs in here"
    assert cli("runs", "list", "--store", "said")[1].strip() == "no runs in said"
    monkeypatch.setenv("IQA_HARNESS_JSON", "1")
    assert json.loads(asked()) == []


def test_one_value_of_an_option_that_repeats_needs_no_list(cli, tmp_path):
    """A model alone is written as a suite is."""
    (tmp_path / "iqa-harness.toml").write_text('[attack]\nsuite = "smoke"\nmodel = "linear"\nlimit = 8\n')
    code, out, _ = cli("attack", "--dry-run", "--json")
    assert code == 0
    assert json.loads(out)["models"] == ["linear"]


def test_a_required_option_and_a_list_may_stand_in_the_file(cli, tmp_path):
    """`iqa-harness attack` alone does what the file says."""
    (tmp_path / "iqa-harness.toml").write_text(
        '[attack]\nsuite = "smoke"\nmodel = ["linear", "again=linear?seed=1"]\nlimit = 8\ndry-run = true\n'
    )
    code, out, _ = cli("attack", "--json")
    found = json.loads(out)
    assert code == 0
    assert (found["models"], found["images"]) == (["linear", "again"], 8)
    assert found["todo"] == found["cells"] > 0


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("stor = 1", "'stor' is no setting of all commands"),
        ('suite = "smoke"', "those of one stand in its table"),
        ("[attack]\nlimt = 1", "[attack] has no setting 'limt', did you mean 'limit'?"),
        ("[runs.lst]\njson = true", "[runs.lst] is no command, did you mean 'runs.list'?"),
        ("[atack]", "[atack] is no command, did you mean 'attack'?"),
        ("runs = 1", "'runs' is no setting"),
        ("[runs]\nlist = 1", "'list' is a table, [runs.list]"),
        ('store = ["a"]', "'store' takes one value, not ['a']"),
        ("store = ", "iqa-harness.toml cannot be read"),
        ("threads = " + 5000 * "[" + 5000 * "]", "iqa-harness.toml cannot be read: values are nested"),
        ("threads = " + 400 * "9", "threads: a whole number beyond 64 bits"),
    ],
)
def test_a_setting_nobody_reads_is_an_error(cli, tmp_path, content, says):
    """A slip in the file must not pass for a setting."""
    (tmp_path / "iqa-harness.toml").write_text(content)
    code, _, err = cli("runs", "list")
    assert code == 3
    assert says in err


def test_a_variable_nobody_reads_is_an_error(cli, monkeypatch):
    """The same of the environment; those that Python reads too are known."""
    monkeypatch.setenv("IQA_HARNESS_DATA", os.devnull)
    assert cli("suites", "list")[0] == 0
    monkeypatch.setenv("IQA_HARNESS_STOER", "x")
    code, _, err = cli("suites", "list")
    assert code == 3
    assert "IQA_HARNESS_STOER is no option's variable, did you mean 'IQA_HARNESS_STORE'?" in err


def test_what_holds_for_all_commands_is_an_option_of_several():
    """A name that fell out of use would be accepted and read by nobody."""
    for name in SHARED:
        assert sum(name in options for options in OPTIONS.values()) > 1


def test_no_color_is_heeded(cli, monkeypatch):
    """Colours where a terminal is forced; none with NO_COLOR."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    coloured = cli("models", "list")[1]
    monkeypatch.setenv("NO_COLOR", "1")
    plain = cli("models", "list")[1]
    assert "\x1b[" in coloured
    assert "\x1b[3" not in plain


def test_an_output_of_another_encoding_takes_every_name(cli, monkeypatch):
    """A pipe of Windows has no Greek: a name in it is written otherwise, and is no bug."""
    pipe = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    monkeypatch.setattr(sys, "stdout", pipe)
    assert cli("runs", "list", "--store", "ε")[0] == 0
    pipe.flush()
    assert pipe.buffer.getvalue().decode("cp1252").strip() == r"no runs in \u03b5"


def test_completion_is_offered(cli):
    """The script that a shell sources names the command."""
    code, out, _ = cli("--help")
    assert code == 0
    assert "--install-completion" in out
    assert "--show-completion" in out


@pytest.mark.parametrize("command", ["verify", "power", "certify"])
def test_a_command_that_is_told_nothing_to_work_on_is_wrong_usage(cli, command):
    """None of their arguments is required by itself; without any there is nothing to do."""
    code, _, err = cli(command)
    assert code == 2
    assert "name a" in err
