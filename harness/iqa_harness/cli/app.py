"""The commands put together, and what becomes of an error."""

from __future__ import annotations

import importlib.metadata
import sys
from typing import Annotated

import typer

from iqa_harness.cli import attack, data, demo, models, report, score, suites, train
from iqa_harness.errors import ExitCode

app = typer.Typer(
    name="iqa-harness",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 1 a check says no, 2 wrong usage, 3 bad input, 4 partial, 130 interrupted.",
)
app.command("demo")(demo.demo)
app.command("train")(train.train)
app.command("attack")(attack.attack)
app.command("report")(report.report)
app.command("score")(score.score)
app.add_typer(models.app, name="models")
app.add_typer(suites.app, name="suites")
app.add_typer(data.app, name="data")


def _version(value: bool) -> None:
    if value:
        typer.echo(f"iqa-harness {importlib.metadata.version('iqa-harness')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Measure how robust no-reference image quality models are against adversarial attack."""


def main() -> None:
    """Run the command line; a user's mistake ends in one line on stderr and a documented exit code."""
    try:
        # Not standalone: typer would turn Ctrl-C into an exit code of its own.
        code = app(standalone_mode=False)
    except typer.Exit as request:
        code = request.exit_code
    except (KeyboardInterrupt, typer.Abort):
        _say("interrupted; what was finished is stored, the same command goes on from there")
        code = ExitCode.INTERRUPTED
    except Exception as error:
        code = _explain(error)
        if code is None:
            raise
    sys.exit(int(code or 0))


def _explain(error: Exception) -> int | None:
    """Print a foreseen error and return its exit code; None for a bug, which keeps its traceback."""
    import click

    from iqa_attacks.errors import AttackError
    from iqa_harness.errors import HarnessError
    from iqa_models.errors import ModelError
    from iqa_reports.errors import ReportsError
    from iqa_results.errors import ResultsError
    from iqa_suites.errors import SuiteError

    if isinstance(error, click.ClickException):
        error.show()
        return ExitCode.USAGE
    foreseen = (AttackError, HarnessError, ModelError, ReportsError, ResultsError, SuiteError)
    if isinstance(error, foreseen):
        _say(str(error))
        return ExitCode.BAD_INPUT
    return None


def _say(message: str) -> None:
    typer.echo(f"iqa-harness: {message}", err=True)
