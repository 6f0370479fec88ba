"""TID2013: 25 originals, 24 distortions at 5 levels."""

from __future__ import annotations

import re

from iqa_harness.data.public.label_files import read_words
from iqa_harness.data.public.layout import Label, Layout, Reading


def read(reading: Reading) -> None:
    """Read names and labels; a name holds original, distortion and level."""
    folder = reading.images_in("distorted_images")
    for where, cells in read_words(reading.file("mos_with_names.txt"), ("mos", "name")):
        name = cells["name"]
        # The release writes the same image as i01_01_1.bmp in one place and I01_01_1.BMP in another.
        parts = re.fullmatch(r"i(\d\d)_(\d\d)_(\d)\.bmp", name.lower())
        if parts is None:
            reading.listing.find(where, "unknown", f"{name} is not named iRR_TT_L.bmp")
            continue
        reading.add(
            where, name.lower(), f"{folder}/{name}", cells["mos"],
            reference=f"i{parts[1]}", distortion=parts[2], level=int(parts[3]),
        )  # fmt: skip


LAYOUT = Layout(
    name="tid2013",
    title="TID2013",
    images=3000,
    labels=(Label("mos", 0, 9),),
    url="https://www.ponomarenko.info/tid2013.htm",
    holds=(
        "distorted_images/     i01_01_1.bmp ... (upper or lower case)",
        "mos_with_names.txt    labels",
        "reference_images/     the originals (not needed)",
    ),
    terms="stated on the page above",
    splits=("references", "all"),
    read=read,
    shares=(15, 5, 5),
)
