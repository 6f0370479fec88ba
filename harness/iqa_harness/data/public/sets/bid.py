"""BID: photographs blurred by the camera."""

from __future__ import annotations

import math

from iqa_harness.data.listing import number
from iqa_harness.data.public.label_files import read_sheet
from iqa_harness.data.public.layout import Label, Layout, Reading


def read(reading: Reading) -> None:
    """Read numbers and labels; a number is a file's name."""
    columns = ("Image Number", "Average Subjective Grade")
    for where, cells in read_sheet(reading.sheet("DatabaseGrades.xlsx"), columns):
        image = number(cells["Image Number"])
        if not math.isfinite(image) or image != int(image):
            reading.listing.find(where, "label", f"Image Number {cells['Image Number']!r} is no whole number")
            continue
        name = f"DatabaseImage{int(image):04d}.JPG"
        reading.add(where, name, name, cells["Average Subjective Grade"])


LAYOUT = Layout(
    name="bid",
    title="BID (Blurred Image Database)",
    images=586,
    labels=(Label("Average Subjective Grade", 0, 5),),
    url="https://github.com/zwx8981/UNIQUE (a copy; the authors' own page is gone)",
    holds=("DatabaseImage0001.JPG ...    the images", "DatabaseGrades.xlsx          labels"),
    terms="not known to us; ask the authors",
    splits=("random", "all"),
    read=read,
)
