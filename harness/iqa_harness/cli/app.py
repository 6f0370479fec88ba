"""The commands put together, and what becomes of an error."""

from __future__ import annotations

import importlib.metadata
import io
import os
import signal
import sys
import traceback
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from iqa_errors import IQAError
from iqa_harness.cli import (
    attack,
    certify,
    data,
    demo,
    diagnose,
    evaluate,
    gate,
    models,
    power,
    profile,
    report,
    runs,
    score,
    study,
    suites,
    train,
    verify,
)
from iqa_harness.cli.command import App
from iqa_harness.cli.defaults import name_variables, read_defaults
from iqa_harness.errors import ExitCode
from iqa_harness.machine.terminal import say

RESUMING = ("attack", "demo", "evaluate", "study", "train")
"""Commands that keep what they finished, and go on from there."""


class _Commands(TyperGroup):
    """Runs a command; a user's mistake ends in one line on stderr and a documented exit code."""

    def __init__(self, **settings: Any) -> None:
        """Take the commands."""
        super().__init__(**settings)
        name_variables(self)

    def invoke(self, ctx: Any) -> Any:
        """Run the command line that was parsed."""
        try:
            ctx.default_map = read_defaults(self, os.environ)
            return super().invoke(ctx)
        except KeyboardInterrupt:
            resumes = ctx.invoked_subcommand in RESUMING
            _say("interrupted" + "; what was finished is stored, the same command goes on" * resumes)
            raise typer.Exit(ExitCode.INTERRUPTED) from None
        except BrokenPipeError:  # who read the output has seen enough; also an OSError
            _close_output()
            raise typer.Exit(ExitCode.OUTPUT_CLOSED) from None
        except (IQAError, OSError) as error:  # a user's mistake, or a disk that is full
            _say(str(error))
            raise typer.Exit(ExitCode.BAD_INPUT) from error


app = App(
    name="iqa-harness",
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 1 a check says no, 2 wrong usage, 3 bad input, 4 partial, 70 a bug, "
    "130 interrupted, 141 output closed.",
)
for verb in (
    demo.demo, train.train, study.study, attack.attack, report.report, report.leaderboard,
    evaluate.evaluate, score.score, profile.profile, diagnose.diagnose, verify.verify, power.power,
    certify.certify, gate.gate,
):  # fmt: skip
    app.command()(verb)
for name, group in (
    ("runs", runs.app), ("baseline", gate.baseline_app), ("models", models.app), ("suites", suites.app),
    ("data", data.app),
):  # fmt: skip
    app.add_typer(group, name=name)


def _version(value: bool) -> None:
    if value:
        say(f"iqa-harness {importlib.metadata.version('iqa-harness')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Measure how robust no-reference image quality models are against adversarial attack."""


def main() -> None:
    """Run the command line; what nobody foresaw is a bug, with its traceback and a code of its own."""
    # A scheduler ends a job with SIGTERM: finish as for Ctrl-C, with a manifest that says so.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # What the output's encoding lacks (a pipe of Windows has few) is written as stderr does.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        app()
    except SystemExit:
        # `--help | head` ends here: click hides the closed pipe behind a wrapper and exits with 1.
        if type(sys.stdout).__name__ == "PacifyFlushWrapper":
            sys.exit(ExitCode.OUTPUT_CLOSED)
        raise
    except Exception:  # noqa: BLE001 - the last stop: printed whole, with a code of its own
        traceback.print_exc()
        _say("this is a bug in iqa-harness or in a plugin; the traceback above says where")
        sys.exit(ExitCode.BUG)


def _close_output() -> None:
    """Let nothing be written to a closed pipe when the interpreter ends."""
    with open(os.devnull, "w", encoding="utf-8") as nowhere:  # noqa: PTH123 - a device, not a file
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


def _say(message: str) -> None:
    say(f"iqa-harness: {message}", err=True)
