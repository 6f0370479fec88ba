"""CSIQ: 30 originals, 6 distortions."""

from __future__ import annotations

import re

from iqa_harness.data.public.label_files import read_sheet, read_words
from iqa_harness.data.public.layout import Label, Layout, Reading

_CSIQ_TYPES = {
    "noise": ("awgn", "AWGN"),
    "awgn": ("awgn", "AWGN"),
    "blur": ("blur", "BLUR"),
    "contrast": ("contrast", "contrast"),
    "fnoise": ("fnoise", "fnoise"),
    "jpeg": ("jpeg", "JPEG"),
    "jpeg 2000": ("jpeg2000", "jpeg2000"),
    "jpeg2000": ("jpeg2000", "jpeg2000"),
}
"""Type as the label files write it: folder of the release, spelling in the names of the images."""


def read(reading: Reading) -> None:
    """Read labels from the sheet, or from the text file of the hyperIQA loader."""
    if (reading.root / "csiq_label.txt").is_file():
        rows = [
            (where, cells["name"], cells["dmos"])
            for where, cells in read_words(reading.file("csiq_label.txt"), ("name", "dmos"))
        ]
    elif any((reading.root / f"csiq.DMOS.{end}").is_file() for end in ("xlsx", "csv")):
        rows = _csiq_sheet(reading)
    else:
        raise reading.missing("csiq.DMOS.xlsx or csiq_label.txt")
    flat = reading.images_in("dst_imgs_all", "dst_imgs") == "dst_imgs_all"
    for where, name, dmos in rows:
        parts = re.fullmatch(r"(.+)\.([A-Za-z0-9]+)\.(\d)\.png", name)
        kind = _CSIQ_TYPES.get(parts[2].lower()) if parts else None
        if parts is None or kind is None:
            reading.listing.find(where, "unknown", f"{name} is not named original.TYPE.level.png")
            continue
        reading.add(
            where, name, f"dst_imgs_all/{name}" if flat else f"dst_imgs/{kind[0]}/{name}", dmos,
            reference=parts[1], distortion=kind[0], level=int(parts[3]),
        )  # fmt: skip


def _csiq_sheet(reading: Reading) -> list[tuple[str, str, object]]:
    sheet = reading.sheet("csiq.DMOS.xlsx")
    rows: list[tuple[str, str, object]] = []
    for where, cells in read_sheet(sheet, ("image", "dst_type", "dst_lev", "dmos"), "all_by_image"):
        kind = _CSIQ_TYPES.get(str(cells["dst_type"]).strip().lower())
        spelt = kind[1] if kind else str(cells["dst_type"])
        rows.append((where, f"{cells['image']}.{spelt}.{cells['dst_lev']}.png", cells["dmos"]))
    return rows


LAYOUT = Layout(
    name="csiq",
    title="CSIQ",
    images=866,
    labels=(Label("dmos", 0, 1, pivot=1),),
    url="https://s2.smu.edu/~eclarson/csiq.html",
    holds=(
        "dst_imgs/TYPE/ (or all in dst_imgs_all/)    1600.AWGN.1.png ...",
        "csiq.DMOS.xlsx (or csiq_label.txt)          labels",
        "src_imgs/                                   the originals (not needed)",
    ),
    terms="stated on the page above",
    splits=("references", "all"),
    read=read,
    shares=(18, 6, 6),
)
