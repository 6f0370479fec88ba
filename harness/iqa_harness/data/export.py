"""A set written down as image files and a table: to look at it, to keep it, to take it elsewhere."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

from PIL import Image

from iqa_harness.data.image_set import PSEUDO, ImageSet

COLUMNS = ("path", "split", "reference", "distortion", "level")


def export_set(images: ImageSet, folder: Path) -> str:
    """Write the images of a set as PNG, its labels as CSV; return what to write after ``--data``.

    The pixels read back are the same, bit for bit. Computed labels stand in a column `pseudo_mos`, people's
    in `mos`. Files are numbered in the set's order, whatever their ids hold.

    Args:
        images: of one size or several.
        folder: made if missing.

    Raises:
        DataError: an image that cannot be read.
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    label = "mos" if images.card.label == "MOS" else PSEUDO
    table = io.StringIO()
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow((*COLUMNS, label))
    for index, record in enumerate(images.records):
        name = f"{index:05d}-{re.sub(r'[^A-Za-z0-9_.-]+', '-', record.image_id)[:80]}.png"
        Image.fromarray(images.read(index)).save(folder / name, optimize=True)
        place = (name, record.split, record.reference, record.distortion or "", record.level)
        rows.writerow((*("" if cell is None else cell for cell in place), repr(record.mos)))
    path = folder / f"{re.sub(r'[^A-Za-z0-9_.-]+', '-', images.card.name)}.csv"
    path.write_text(table.getvalue(), encoding="utf-8")
    # All digits: a rounded end could lie inside the labels.
    low, high = (repr(float(end)).removesuffix(".0") for end in images.card.mos_range)
    return f"{path.as_posix()}?mos_range={low},{high}" + (f"&label={label}" if label != "mos" else "")
