"""SPAQ: photographs from smartphones."""

from __future__ import annotations

from iqa_harness.data.public.label_files import read_sheet
from iqa_harness.data.public.layout import Label, Layout, Reading


def read(reading: Reading) -> None:
    """Read names and labels."""
    sheet = reading.sheet("Annotations/MOS and Image attribute scores.xlsx")
    folder = reading.images_in("TestImage")
    for where, cells in read_sheet(sheet, ("Image name", reading.label.column)):
        name = str(cells["Image name"])
        reading.add(where, name, f"{folder}/{name}", cells[reading.label.column])


LAYOUT = Layout(
    name="spaq",
    title="SPAQ (Smartphone Photography Attribute and Quality)",
    images=11_125,
    labels=tuple(
        Label(column, 0, 100)
        for column in ("MOS", "Brightness", "Colorfulness", "Contrast", "Noisiness", "Sharpness")
    ),
    url="https://github.com/h4nwei/SPAQ",
    holds=(
        "TestImage/                                         the images",
        "Annotations/MOS and Image attribute scores.xlsx    labels",
    ),
    terms="stated on the page above",
    splits=("random", "all"),
    read=read,
    advice="Large photographs: take a model that resizes them, or write ?resize=384x512.",
)
