"""LIVE release 2: 29 originals, 5 distortions."""

from __future__ import annotations

from iqa_harness.data.listing import number
from iqa_harness.data.public.label_files import read_mat
from iqa_harness.data.public.layout import Label, Layout, Reading
from iqa_harness.errors import DataError

LIVE_FOLDERS = {"jp2k": 227, "jpeg": 233, "wn": 174, "gblur": 174, "fastfading": 174}
"""Distortions of LIVE in the order of its label files, with the number of images of each."""


def read(reading: Reading) -> None:
    """Read labels, which are matched with images by place; originals are left out."""
    labels = reading.file("dmos_realigned.mat")
    dmos, originals = read_mat(labels, "dmos_new"), read_mat(labels, "orgs")
    references = read_mat(reading.file("refnames_all.mat"), "refnames_all")
    if not len(dmos) == len(originals) == len(references):
        raise DataError(
            f"{reading.root}: {len(dmos)} labels, {len(originals)} marks of originals and {len(references)} "
            "names of originals; the three must agree"
        )
    sizes = _live_sizes(reading, len(dmos))
    place = 0
    for folder, count in sizes.items():
        reading.images_in(folder)
        for image in range(1, count + 1):
            if number(originals[place]) != 1:
                name = f"{folder}/img{image}.bmp"
                reading.add(
                    f"entry {place + 1}", name, name, dmos[place],
                    reference=str(references[place]), distortion=folder,
                )  # fmt: skip
            place += 1


def _live_sizes(reading: Reading, total: int) -> dict[str, int]:
    """Return how many of the labels belong to each folder: the release's numbers."""
    if total == sum(LIVE_FOLDERS.values()):
        return LIVE_FOLDERS
    raise DataError(
        f"{reading.root / 'dmos_realigned.mat'}: {total} labels, not {sum(LIVE_FOLDERS.values())}; "
        "labels and images are matched by place, so a part of the set cannot be read"
    )


LAYOUT = Layout(
    name="live",
    title="LIVE Image Quality Assessment Database, release 2",
    images=779,
    labels=(Label("dmos_new", -10, 120, pivot=100),),
    url="https://live.ece.utexas.edu/research/quality/subjective.htm",
    holds=(
        "jp2k/ jpeg/ wn/ gblur/ fastfading/    img1.bmp ...",
        "dmos_realigned.mat                    labels (dmos_new) and which images are originals (orgs)",
        "refnames_all.mat                      the original of every image",
        "refimgs/                              the originals (not needed)",
    ),
    terms="copyright The University of Texas at Austin; use and redistribution without fee, "
    "with its notice and citation",
    splits=("references", "all"),
    read=read,
    shares=(17, 6, 6),
    advice="Originals among the images are left out: they have no label of their own.",
    ordinary=("refimgs/*", *(f"{folder}/*" for folder in LIVE_FOLDERS)),
)
