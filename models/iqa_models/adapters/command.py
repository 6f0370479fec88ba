"""``cmd:SCORER {files}``: a command that prints a number a file. It is run, without a shell."""

from __future__ import annotations

import hashlib
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from iqa_models.adapters.foreign import ForeignModel, Known, require_bytes, require_options
from iqa_models.errors import BadModelOption, ModelError
from iqa_models.registry import register_model

FILES = "{files}"
"""Stands for the image files in a command."""
SECONDS = 300.0
"""Time limit of one call, unless the option ``seconds`` says otherwise."""
TOGETHER = 256
"""Most files in one call: far below what any system allows a command line."""
KEPT = 200_000
"""Answers that are kept."""


@register_model("cmd")
def cmd(of: str, **options: Any) -> ForeignModel:
    """A command that prints one number a file, as cmd:'SCORER {files}'.

    It is called with many PNG files of 8 bits at once and prints a line a file, in their order, whose last
    word is the score. Answers are kept by content as long as the model lives. It is a black box.

    Args:
        of: the command; `{files}` stands alone where the files go. It is split as a shell splits words and
            run without one: no pipes, no variables.
        **options: ``seconds``, the time limit of a call; `iqa_models.adapters.foreign.OPTIONS`.
    """
    require_options("cmd", options, ("seconds",))
    require_bytes("cmd", options)
    scorer = Command(of, options.get("seconds", SECONDS))
    known = Known(
        f"command {of}", scorer.words[0], gradient=False, files=scorer.files,
        notes=("scores files of 8 bits a channel: a change below half a grey level is none to it",),
    )  # fmt: skip
    return CommandModel("cmd", {"of": of, **options}, known, scorer, "arrays").eval()


class CommandModel(ForeignModel):
    """A command under test."""

    scorer: Command

    def forget(self) -> None:
        """Let every image be scored anew."""
        self.scorer.answers.clear()


class Command:
    """Scores arrays (B, H, W, 3) in [0, 1] by a command."""

    def __init__(self, text: str, seconds: float) -> None:
        try:
            self.words = tuple(shlex.split(text))
        except ValueError as error:
            raise BadModelOption(f"cmd:{text}: not to be split into words ({error})") from error
        if self.words.count(FILES) != 1 or self.words[0] == FILES:
            raise BadModelOption(f"cmd:{text}: one word must be {FILES}, where the image files go")
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds > 0:
            raise BadModelOption(f"cmd:{text}: seconds is a number above 0, not {seconds!r}")
        self.seconds = float(seconds)
        program = shutil.which(self.words[0])
        if program is None:
            raise BadModelOption(f"cmd:{text}: there is no program {self.words[0]!r} to run")
        self.program = program
        self.answers: dict[str, float] = {}

    @property
    def files(self) -> tuple[tuple[str, str], ...]:
        """Names and hashes of the program and of every file among its words."""
        paths = [Path(self.program), *(Path(word) for word in self.words[1:] if word != FILES)]
        return tuple((p.name, hashlib.sha256(p.read_bytes()).hexdigest()) for p in paths if _is_file(p))

    def __reduce__(self) -> tuple[Any, ...]:
        """Leave out the answers: they are no part of what the model is."""
        return type(self), (shlex.join(self.words), self.seconds)

    def __call__(self, images: NDArray[np.float32]) -> list[float]:
        """Score images as files of 8 bits; those of one content once.

        Raises:
            ModelError: the command fails, takes too long, or does not print one number a file.
        """
        pixels = [np.ascontiguousarray((image * 255 + 0.5).astype(np.uint8)) for image in images]
        names = [hashlib.sha256(repr(p.shape).encode() + p.tobytes()).hexdigest() for p in pixels]
        new = {name: p for name, p in zip(names, pixels, strict=True) if name not in self.answers}
        found = dict(zip(new, self._asked(list(new.values())), strict=True))
        scores = [found[name] if name in found else self.answers[name] for name in names]
        if len(self.answers) + len(found) > KEPT:
            self.answers.clear()
        self.answers.update(found)
        return scores

    def _asked(self, images: Sequence[NDArray[np.uint8]]) -> list[float]:
        scores: list[float] = []
        with tempfile.TemporaryDirectory(prefix="iqa-cmd-") as folder:
            for first in range(0, len(images), TOGETHER):
                files = []
                for i, image in enumerate(images[first : first + TOGETHER], start=first):
                    file = Path(folder) / f"{i:06d}.png"
                    Image.fromarray(image).save(file, compress_level=1)
                    files.append(str(file))
                scores += self._numbers(files)
        return scores

    def _numbers(self, files: Sequence[str]) -> list[float]:
        """Run the command on files and read its numbers."""
        name, at = f"cmd:{shlex.join(self.words)}", self.words.index(FILES)
        command = [self.program, *self.words[1:at], *files, *self.words[at + 1 :]]
        try:
            done = subprocess.run(  # noqa: S603 - the user's own command, word by word and without a shell
                command, capture_output=True, text=True, errors="replace", timeout=self.seconds, check=False,
                stdin=subprocess.DEVNULL,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise ModelError(
                f"{name}: no answer for {len(files)} files in {self.seconds:g} s; ?seconds=... allows more"
            ) from error
        except OSError as error:
            raise ModelError(f"{name}: cannot be run ({error.strerror})") from error
        if done.returncode != 0:
            said = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:] or ["it said nothing"]
            raise ModelError(f"{name}: ended with code {done.returncode}: {said[0][:200]}")
        lines = [line for line in done.stdout.splitlines() if line.strip()]
        if len(lines) != len(files):
            raise ModelError(
                f"{name}: printed {len(lines)} lines for {len(files)} files; it must print one number a file"
            )
        try:
            return [float(line.split()[-1]) for line in lines]
        except ValueError as error:
            raise ModelError(f"{name}: the last word of a line must be the score ({error})") from error


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a word that no path can be
        return False
