"""The commands put together, and what becomes of an error."""

from __future__ import annotations

import importlib.metadata
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from iqa_harness.cli import attack, data, demo, models, report, score, suites, train
from iqa_harness.errors import ExitCode


class _Commands(TyperGroup):
    """Runs a command; a user's mistake ends in one line on stderr and a documented exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command line that was parsed."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            _say("interrupted; what was finished is stored, the same command goes on from there")
            raise typer.Exit(ExitCode.INTERRUPTED) from None
        except Exception as error:
            if not _is_foreseen(error):
                raise
            _say(str(error))
            raise typer.Exit(ExitCode.BAD_INPUT) from error


app = typer.Typer(
    name="iqa-harness",
    cls=_Commands,
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
    """Run the command line."""
    app()


def _is_foreseen(error: Exception) -> bool:
    """Whether an error is a user's mistake; anything else is a bug and keeps its traceback."""
    from iqa_attacks.errors import AttackError
    from iqa_harness.errors import HarnessError
    from iqa_models.errors import ModelError
    from iqa_reports.errors import ReportsError
    from iqa_results.errors import ResultsError
    from iqa_suites.errors import SuiteError

    foreseen = (AttackError, HarnessError, ModelError, ReportsError, ResultsError, SuiteError)
    return isinstance(error, foreseen)


def _say(message: str) -> None:
    typer.echo(f"iqa-harness: {message}", err=True)
