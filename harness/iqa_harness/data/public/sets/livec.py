"""LIVE In the Wild Challenge: photographs from phones."""

from __future__ import annotations

from iqa_harness.data.public.label_files import read_mat
from iqa_harness.data.public.layout import Label, Layout, Reading

TRAINING_IMAGES = 7
"""Images of LIVE Challenge that trained the raters; they come first and are not part of the set."""


def read(reading: Reading) -> None:
    """Read names and labels, which are matched by place."""
    names = read_mat(reading.file("Data/AllImages_release.mat"), "AllImages_release")
    labels = read_mat(reading.file("Data/AllMOS_release.mat"), "AllMOS_release")
    folder = reading.images_in("Images")
    if len(names) != len(labels):
        reading.listing.find("AllMOS_release.mat", "label", f"{len(labels)} labels for {len(names)} images")
    for place, (name, mos) in enumerate(zip(names, labels, strict=False)):
        if place >= TRAINING_IMAGES:
            reading.add(f"entry {place + 1}", str(name), f"{folder}/{name}", mos)


LAYOUT = Layout(
    name="livec",
    title="LIVE In the Wild Image Quality Challenge (CLIVE)",
    images=1162,
    labels=(Label("AllMOS_release", 0, 100),),
    url="https://live.ece.utexas.edu/research/ChallengeDB/index.html",
    holds=(
        "Images/                       the images, the raters' training images in Images/trainingImages/",
        "Data/AllImages_release.mat    names",
        "Data/AllMOS_release.mat       labels",
    ),
    terms="copyright The University of Texas at Austin; use and redistribution without fee, "
    "with its notice and citation",
    splits=("random", "all"),
    read=read,
    advice="The first seven names are the raters' training images and are left out.",
    ordinary=("Images/trainingImages/*",),
)
