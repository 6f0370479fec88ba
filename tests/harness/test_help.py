"""The help of every command, as a user reads it."""

import itertools
import re

import pytest
import typer

from iqa_harness.cli import app


def commands(command, words=()):
    """Yield every command with the words that call it."""
    yield words, command
    for name, below in getattr(command, "commands", {}).items():
        yield from commands(below, (*words, name))


ALL = dict(commands(typer.main.get_command(app)))


def letters(text):
    """Return a text without what a terminal's width and frames do to it."""
    return re.sub(r"[\s│╭╮╰╯─-]", "", text)


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_no_help_text_loses_a_word(cli, words, monkeypatch):
    """What is written for an option, an argument or a command is printed whole in 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = cli(*words, "--help")
    assert code == 0
    assert "…" not in out
    for line, below in itertools.pairwise(out.partition("╭")[0].splitlines()):
        if line.strip() and below.strip():  # broken where the width ends, not where the source's lines do
            assert len(line.rstrip()) + 1 + len(below.split()[0]) > 79
    shown = letters(out)
    command = ALL[words]
    texts = [command.help, *(getattr(parameter, "help", None) for parameter in command.params)]
    for text in filter(None, texts):
        for part in text.split("\f")[0].split("\n\n"):
            assert letters(part) in shown, part
