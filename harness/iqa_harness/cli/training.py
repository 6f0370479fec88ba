"""Options that `train` and `study` share."""

from __future__ import annotations

from typing import Annotated

import typer

DataOption = Annotated[
    str | None,
    typer.Option(
        "--data",
        help="Images: a set's name, koniq10k:/folder and the like, or a CSV.",
        show_default="the preset's",
    ),
]
RangeOption = Annotated[
    tuple[float, float] | None, typer.Option("--mos-range", help="Ends of a CSV's label scale.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="key=value of a setting (see --show), options.KEY=value of the model's. Repeat."
    ),
]
SaveOption = Annotated[
    int, typer.Option("--save-every", min=0, help="Steps between saved states; 0 saves once an epoch.")
]
