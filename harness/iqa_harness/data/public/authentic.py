"""Sets whose images were not distorted on purpose: KonIQ-10k, LIVE Challenge, BID, SPAQ, AGIQA-3K."""

from __future__ import annotations

import math

from iqa_harness.data.listing import number
from iqa_harness.data.public.label_files import read_csv, read_mat, read_sheet
from iqa_harness.data.public.layout import Label, Layout, Reading

_KONIQ_SETS = {"training": "train", "validation": "val", "test": "test"}


def _koniq(reading: Reading) -> None:
    rows = read_csv(
        reading.file("koniq10k_scores_and_distributions.csv"), ("image_name", reading.label.column)
    )
    folder = reading.images_in("1024x768", "512x384")
    splits: dict[str, str] = {}
    if reading.options.get("split", "official") == "official":
        lists = reading.file("koniq10k_distributions_sets.csv")
        for where, cells in read_csv(lists, ("image_name", "set")):
            if cells["set"] not in _KONIQ_SETS:
                known = ", ".join(_KONIQ_SETS)
                reading.listing.find(
                    f"{lists.name} {where}", "split", f"set {cells['set']!r} is none of {known}"
                )
            if cells["image_name"] in splits:
                reading.listing.find(
                    f"{lists.name} {where}", "duplicate", f"{cells['image_name']} is listed twice"
                )
            splits[cells["image_name"]] = _KONIQ_SETS.get(cells["set"], "test")
        labelled = {cells["image_name"] for _, cells in rows}
        for name in sorted(set(splits) - labelled):
            reading.listing.find(lists.name, "unknown", f"{name} has no row in the label file")
    for where, cells in rows:
        name = cells["image_name"]
        if splits and name not in splits:
            reading.listing.find(where, "split", f"{name} has no row in koniq10k_distributions_sets.csv")
        reading.add(where, name, f"{folder}/{name}", cells[reading.label.column], split=splits.get(name, ""))


KONIQ = Layout(
    name="koniq10k",
    title="KonIQ-10k",
    images=10_073,
    labels=(Label("MOS_zscore", 0, 100), Label("MOS", 1, 5)),
    url="https://database.mmsp-kn.de/koniq-10k-database.html",
    holds=(
        "1024x768/ (or 512x384/)                   the images",
        "koniq10k_scores_and_distributions.csv     labels",
        "koniq10k_distributions_sets.csv           training, validation, test; not needed with ?split=random",
    ),
    terms="stated on the page above",
    splits=("official", "random", "all"),
    read=_koniq,
    advice="The sets file is offered at https://github.com/subpic/koniq in metadata/.",
)

TRAINING_IMAGES = 7
"""Images of LIVE Challenge that trained the raters; they come first and are not part of the set."""


def _live_challenge(reading: Reading) -> None:
    names = read_mat(reading.file("Data/AllImages_release.mat"), "AllImages_release")
    labels = read_mat(reading.file("Data/AllMOS_release.mat"), "AllMOS_release")
    folder = reading.images_in("Images")
    if len(names) != len(labels):
        reading.listing.find("AllMOS_release.mat", "label", f"{len(labels)} labels for {len(names)} images")
    for place, (name, mos) in enumerate(zip(names, labels, strict=False)):
        if place >= TRAINING_IMAGES:
            reading.add(f"entry {place + 1}", str(name), f"{folder}/{name}", mos)


LIVE_CHALLENGE = Layout(
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
    read=_live_challenge,
    advice="The first seven names are the raters' training images and are left out.",
    ordinary=("Images/trainingImages/*",),
)


def _bid(reading: Reading) -> None:
    columns = ("Image Number", "Average Subjective Grade")
    for where, cells in read_sheet(reading.sheet("DatabaseGrades.xlsx"), columns):
        image = number(cells["Image Number"])
        if not math.isfinite(image) or image != int(image):
            reading.listing.find(where, "label", f"Image Number {cells['Image Number']!r} is no whole number")
            continue
        name = f"DatabaseImage{int(image):04d}.JPG"
        reading.add(where, name, name, cells["Average Subjective Grade"])


BID = Layout(
    name="bid",
    title="BID (Blurred Image Database)",
    images=586,
    labels=(Label("Average Subjective Grade", 0, 5),),
    url="https://github.com/zwx8981/UNIQUE (a copy; the authors' own page is gone)",
    holds=("DatabaseImage0001.JPG ...    the images", "DatabaseGrades.xlsx          labels"),
    terms="not known to us; ask the authors",
    splits=("random", "all"),
    read=_bid,
)


def _spaq(reading: Reading) -> None:
    sheet = reading.sheet("Annotations/MOS and Image attribute scores.xlsx")
    folder = reading.images_in("TestImage")
    for where, cells in read_sheet(sheet, ("Image name", reading.label.column)):
        name = str(cells["Image name"])
        reading.add(where, name, f"{folder}/{name}", cells[reading.label.column])


SPAQ = Layout(
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
    read=_spaq,
    advice="Large photographs: take a model that resizes them, or write ?resize=384x512.",
)


def _agiqa(reading: Reading) -> None:
    rows = read_csv(reading.file("data.csv"), ("name", reading.label.column))
    # The archive unpacks the images beside data.csv or into a folder, as the user chose.
    folder = next((f"{n}/" for n in ("images", "AGIQA-3K") if reading.listing.folder.has_folder(n)), "")
    for where, cells in rows:
        name = cells["name"]
        reading.add(where, name, f"{folder}{name}" if name else "", cells[reading.label.column])


AGIQA = Layout(
    name="agiqa3k",
    title="AGIQA-3K",
    images=2982,
    labels=(Label("mos_quality", 0, 5), Label("mos_align", 0, 5)),
    url="https://github.com/lcysyzxdxc/AGIQA-3k-Database",
    holds=("images/ (or the images beside it)    the images", "data.csv                             labels"),
    terms="stated on the page above",
    splits=("random", "all"),
    read=_agiqa,
    advice="For a cross-data-set test all images are used: write ?split=all.",
)
