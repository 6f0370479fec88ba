"""AGIQA-3K: images generated from 300 prompts."""

from __future__ import annotations

from iqa_harness.data.public.label_files import read_csv
from iqa_harness.data.public.layout import Label, Layout, Reading


def read(reading: Reading) -> None:
    """Read names, prompts and labels; the content of an image is its prompt."""
    rows = read_csv(reading.file("data.csv"), ("name", "prompt", reading.label.column))
    # The archive unpacks the images beside data.csv or into a folder, as the user chose.
    folder = next((f"{n}/" for n in ("images", "AGIQA-3K") if reading.listing.folder.has_folder(n)), "")
    for where, cells in rows:
        name, label = cells["name"], cells[reading.label.column]
        prompt = " ".join(cells["prompt"].casefold().split())
        reading.add(where, name, f"{folder}{name}" if name else "", label, reference=prompt)


LAYOUT = Layout(
    name="agiqa3k",
    title="AGIQA-3K",
    images=2982,
    labels=(Label("mos_quality", 0, 5), Label("mos_align", 0, 5)),
    url="https://github.com/lcysyzxdxc/AGIQA-3k-Database",
    holds=("images/ (or the images beside it)    the images", "data.csv                             labels"),
    terms="stated on the page above",
    splits=("references", "all"),
    read=read,
    advice="Images of one prompt stay in one split. For a cross-data-set test write ?split=all.",
)
