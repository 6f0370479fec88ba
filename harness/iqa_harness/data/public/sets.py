"""The public sets: what the folder holds that their authors ship, and how its rows are read.

A new one is a function that adds its rows and a `Layout`, named in `LAYOUTS`; another package offers one
under the entry point group `iqa_harness.data`.
"""

from __future__ import annotations

import math
import re
from typing import Final

from iqa_harness.data.listing import number
from iqa_harness.data.public.label_files import read_mat
from iqa_harness.data.public.layout import Label, Layout, Reading
from iqa_harness.errors import DataError

_ON_PAGE: Final = "stated on the page above"
_TEXAS: Final = (
    "copyright The University of Texas at Austin; use and redistribution without fee, "
    "with its notice and citation"
)


def _agiqa3k(reading: Reading) -> None:
    """Read names, prompts and labels; the content of an image is its prompt."""
    rows = reading.rows("data.csv", "name", "prompt", reading.label.column)
    # The archive unpacks the images beside data.csv or into a folder, as the user chose.
    folder = next((f"{n}/" for n in ("images", "AGIQA-3K") if reading.listing.folder.has_folder(n)), "")
    for where, cells in rows:
        name, label = cells["name"], cells[reading.label.column]
        prompt = " ".join(cells["prompt"].casefold().split())
        reading.add(where, name, f"{folder}{name}" if name else "", label, reference=prompt)


AGIQA3K: Final = Layout(
    name="agiqa3k",
    title="AGIQA-3K",
    images=2982,
    labels=(Label("mos_quality", 0, 5), Label("mos_align", 0, 5)),
    url="https://github.com/lcysyzxdxc/AGIQA-3k-Database",
    holds=("images/ (or the images beside it)    the images", "data.csv                             labels"),
    terms=_ON_PAGE,
    splits=("references", "all"),
    read=_agiqa3k,
    advice="Images of one prompt stay in one split. For a cross-data-set test write ?split=all.",
)
"""Images generated from 300 prompts."""


def _bid(reading: Reading) -> None:
    """Read numbers and labels; a number is a file's name."""
    for where, cells in reading.rows("DatabaseGrades.xlsx", "Image Number", "Average Subjective Grade"):
        image = number(cells["Image Number"])
        if not math.isfinite(image) or image != int(image):
            reading.listing.find(where, "label", f"Image Number {cells['Image Number']!r} is no whole number")
            continue
        name = f"DatabaseImage{int(image):04d}.JPG"
        reading.add(where, name, name, cells["Average Subjective Grade"])


BID: Final = Layout(
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
"""Photographs blurred by the camera."""

_CSIQ_TYPES: Final = {
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


def _csiq(reading: Reading) -> None:
    """Read labels from the sheet, or from the text file of the hyperIQA loader."""
    if (reading.root / "csiq_label.txt").is_file():
        rows = [(where, c["name"], c["dmos"]) for where, c in reading.rows("csiq_label.txt", "name", "dmos")]
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
    """Return where each row of the sheet stands, the name it means, and its label."""
    columns = ("image", "dst_type", "dst_lev", "dmos")
    rows: list[tuple[str, str, object]] = []
    for where, cells in reading.rows("csiq.DMOS.xlsx", *columns, sheet="all_by_image"):
        kind = _CSIQ_TYPES.get(str(cells["dst_type"]).strip().lower())
        spelt = kind[1] if kind else str(cells["dst_type"])
        rows.append((where, f"{cells['image']}.{spelt}.{cells['dst_lev']}.png", cells["dmos"]))
    return rows


CSIQ: Final = Layout(
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
    terms=_ON_PAGE,
    splits=("references", "all"),
    read=_csiq,
    shares=(18, 6, 6),
)
"""30 originals, 6 distortions."""


def _kadid10k(reading: Reading) -> None:
    """Read names, originals and labels."""
    folder = reading.images_in("images")
    for where, cells in reading.rows("dmos.csv", "dist_img", "ref_img", "dmos"):
        name = cells["dist_img"]
        parts = re.fullmatch(r"I\d\d_(\d\d)_(\d\d)\.png", name)
        reading.add(
            where, name, f"{folder}/{name}", cells["dmos"], reference=cells["ref_img"],
            distortion=parts[1] if parts else None, level=int(parts[2]) if parts else None,
        )  # fmt: skip


KADID10K: Final = Layout(
    name="kadid10k",
    title="KADID-10k",
    images=10_125,
    labels=(Label("dmos", 1, 5),),
    url="https://database.mmsp-kn.de/kadid-10k-database.html",
    holds=("images/     I01_01_01.png ... and the originals I01.png ...", "dmos.csv    labels"),
    terms=_ON_PAGE,
    splits=("references", "all"),
    read=_kadid10k,
    shares=(65, 8, 8),
    advice="Its column is called dmos, but higher is better.",
    ordinary=("images/I[0-9][0-9].png",),
)
"""81 originals, 25 distortions at 5 levels."""

_KONIQ_SETS: Final = {"training": "train", "validation": "val", "test": "test"}


def _koniq10k(reading: Reading) -> None:
    """Read labels and the authors' own splits."""
    rows = reading.rows("koniq10k_scores_and_distributions.csv", "image_name", reading.label.column)
    folder = reading.images_in("1024x768", "512x384")
    lists, splits = "koniq10k_distributions_sets.csv", dict[str, str]()
    if reading.options.get("split", "official") == "official":
        for where, cells in reading.rows(lists, "image_name", "set"):
            if cells["set"] not in _KONIQ_SETS:
                known = ", ".join(_KONIQ_SETS)
                reading.listing.find(f"{lists} {where}", "split", f"set {cells['set']!r} is none of {known}")
            if cells["image_name"] in splits:
                reading.listing.find(
                    f"{lists} {where}", "duplicate", f"{cells['image_name']} is listed twice"
                )
            splits[cells["image_name"]] = _KONIQ_SETS.get(cells["set"], "test")
        for name in sorted(set(splits) - {cells["image_name"] for _, cells in rows}):
            reading.listing.find(lists, "unknown", f"{name} has no row in the label file")
    for where, cells in rows:
        name = cells["image_name"]
        if splits and name not in splits:
            reading.listing.find(where, "split", f"{name} has no row in {lists}")
        reading.add(where, name, f"{folder}/{name}", cells[reading.label.column], split=splits.get(name, ""))


KONIQ10K: Final = Layout(
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
    terms=_ON_PAGE,
    splits=("official", "random", "all"),
    read=_koniq10k,
    advice="The sets file is offered at https://github.com/subpic/koniq in metadata/.",
)
"""Photographs from the web, with the authors' own splits."""

_LIVE_FOLDERS: Final = {"jp2k": 227, "jpeg": 233, "wn": 174, "gblur": 174, "fastfading": 174}
"""Distortions of LIVE in the order of its label files, with the number of images of each."""


def _live(reading: Reading) -> None:
    """Read labels, which are matched with images by place; originals are left out."""
    labels = reading.file("dmos_realigned.mat")
    dmos, originals = read_mat(labels, "dmos_new"), read_mat(labels, "orgs")
    references = read_mat(reading.file("refnames_all.mat"), "refnames_all")
    if not len(dmos) == len(originals) == len(references):
        raise DataError(
            f"{reading.root}: {len(dmos)} labels, {len(originals)} marks of originals and {len(references)} "
            "names of originals; the three must agree"
        )
    if len(dmos) != sum(_LIVE_FOLDERS.values()):
        raise DataError(
            f"{labels}: {len(dmos)} labels, not {sum(_LIVE_FOLDERS.values())}; "
            "labels and images are matched by place, so a part of the set cannot be read"
        )
    place = 0
    for folder, count in _LIVE_FOLDERS.items():
        reading.images_in(folder)
        for image in range(1, count + 1):
            if number(originals[place]) != 1:
                name = f"{folder}/img{image}.bmp"
                reading.add(
                    f"entry {place + 1}", name, name, dmos[place],
                    reference=str(references[place]), distortion=folder,
                )  # fmt: skip
            place += 1


LIVE: Final = Layout(
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
    terms=_TEXAS,
    splits=("references", "all"),
    read=_live,
    shares=(17, 6, 6),
    advice="Originals among the images are left out: they have no label of their own.",
    ordinary=("refimgs/*", *(f"{folder}/*" for folder in _LIVE_FOLDERS)),
)
"""29 originals, 5 distortions."""

_TRAINING_IMAGES: Final = 7
"""Images of LIVE Challenge that trained the raters; they come first and are not part of the set."""


def _livec(reading: Reading) -> None:
    """Read names and labels, which are matched by place."""
    names = read_mat(reading.file("Data/AllImages_release.mat"), "AllImages_release")
    labels = read_mat(reading.file("Data/AllMOS_release.mat"), "AllMOS_release")
    folder = reading.images_in("Images")
    if len(names) != len(labels):
        reading.listing.find("AllMOS_release.mat", "label", f"{len(labels)} labels for {len(names)} images")
    for place, (name, mos) in enumerate(zip(names, labels, strict=False)):
        if place >= _TRAINING_IMAGES:
            reading.add(f"entry {place + 1}", str(name), f"{folder}/{name}", mos)


LIVEC: Final = Layout(
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
    terms=_TEXAS,
    splits=("random", "all"),
    read=_livec,
    advice="The first seven names are the raters' training images and are left out.",
    ordinary=("Images/trainingImages/*",),
)
"""Photographs from phones."""


def _spaq(reading: Reading) -> None:
    """Read names and labels."""
    label = reading.label.column
    rows = reading.rows("Annotations/MOS and Image attribute scores.xlsx", "Image name", label)
    folder = reading.images_in("TestImage")
    for where, cells in rows:
        name = str(cells["Image name"])
        reading.add(where, name, f"{folder}/{name}", cells[label])


SPAQ: Final = Layout(
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
    terms=_ON_PAGE,
    splits=("random", "all"),
    read=_spaq,
    advice="Large photographs: take a model that resizes them, or write ?resize=384x512.",
)
"""Photographs from smartphones."""


def _tid2013(reading: Reading) -> None:
    """Read names and labels; a name holds original, distortion and level."""
    folder = reading.images_in("distorted_images")
    for where, cells in reading.rows("mos_with_names.txt", "mos", "name"):
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


TID2013: Final = Layout(
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
    terms=_ON_PAGE,
    splits=("references", "all"),
    read=_tid2013,
    shares=(15, 5, 5),
)
"""25 originals, 24 distortions at 5 levels."""

LAYOUTS: Final = {
    one.name: one for one in (AGIQA3K, BID, CSIQ, KADID10K, KONIQ10K, LIVE, LIVEC, SPAQ, TID2013)
}
