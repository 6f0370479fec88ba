"""KADID-10k: 81 originals, 25 distortions at 5 levels."""

from __future__ import annotations

import re

from iqa_harness.data.public.label_files import read_csv
from iqa_harness.data.public.layout import Label, Layout, Reading


def read(reading: Reading) -> None:
    """Read names, originals and labels."""
    folder = reading.images_in("images")
    for where, cells in read_csv(reading.file("dmos.csv"), ("dist_img", "ref_img", "dmos")):
        name = cells["dist_img"]
        parts = re.fullmatch(r"I\d\d_(\d\d)_(\d\d)\.png", name)
        reading.add(
            where, name, f"{folder}/{name}", cells["dmos"], reference=cells["ref_img"],
            distortion=parts[1] if parts else None, level=int(parts[2]) if parts else None,
        )  # fmt: skip


LAYOUT = Layout(
    name="kadid10k",
    title="KADID-10k",
    images=10_125,
    labels=(Label("dmos", 1, 5),),
    url="https://database.mmsp-kn.de/kadid-10k-database.html",
    holds=("images/     I01_01_01.png ... and the originals I01.png ...", "dmos.csv    labels"),
    terms="stated on the page above",
    splits=("references", "all"),
    read=read,
    shares=(65, 8, 8),
    advice="Its column is called dmos, but higher is better.",
    ordinary=("images/I[0-9][0-9].png",),
)
