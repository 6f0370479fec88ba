"""Sets of originals distorted on purpose, split by original: TID2013, KADID-10k, CSIQ, LIVE."""

from __future__ import annotations

import re

from iqa_harness.data.listing import number
from iqa_harness.data.public.label_files import read_csv, read_mat, read_sheet, read_words
from iqa_harness.data.public.layout import Label, Layout, Reading
from iqa_harness.errors import DataError


def _tid2013(reading: Reading) -> None:
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


TID2013 = Layout(
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
    read=_tid2013,
    shares=(15, 5, 5),
)


def _kadid(reading: Reading) -> None:
    folder = reading.images_in("images")
    for where, cells in read_csv(reading.file("dmos.csv"), ("dist_img", "ref_img", "dmos")):
        name = cells["dist_img"]
        parts = re.fullmatch(r"I\d\d_(\d\d)_(\d\d)\.png", name)
        reading.add(
            where, name, f"{folder}/{name}", cells["dmos"], reference=cells["ref_img"],
            distortion=parts[1] if parts else None, level=int(parts[2]) if parts else None,
        )  # fmt: skip


KADID10K = Layout(
    name="kadid10k",
    title="KADID-10k",
    images=10_125,
    labels=(Label("dmos", 1, 5),),
    url="https://database.mmsp-kn.de/kadid-10k-database.html",
    holds=("images/     I01_01_01.png ... and the originals I01.png ...", "dmos.csv    labels"),
    terms="stated on the page above",
    splits=("references", "all"),
    read=_kadid,
    shares=(65, 8, 8),
    advice="Its column is called dmos, but higher is better.",
    ordinary=("images/I[0-9][0-9].png",),
)

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


def _csiq(reading: Reading) -> None:
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


CSIQ = Layout(
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
    read=_csiq,
    shares=(18, 6, 6),
)

LIVE_FOLDERS = {"jp2k": 227, "jpeg": 233, "wn": 174, "gblur": 174, "fastfading": 174}
"""Distortions of LIVE in the order of its label files, with the number of images of each."""


def _live(reading: Reading) -> None:
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


LIVE = Layout(
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
    read=_live,
    shares=(17, 6, 6),
    advice="Originals among the images are left out: they have no label of their own.",
    ordinary=("refimgs/*", *(f"{folder}/*" for folder in LIVE_FOLDERS)),
)
