"""Public sets in miniature, in their authors' layouts."""

import csv
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import openpyxl
import scipy.io
from PIL import Image


def image(path: Path, seed: int, size: tuple[int, int] = (40, 32)) -> None:
    """Write an image of noise, another one for every seed."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def table(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def sheet(path: Path, rows: Sequence[Sequence[object]], title: str = "Sheet1") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    book = openpyxl.Workbook()
    book.active.title = title
    for row in rows:
        book.active.append(list(row))
    book.save(path)


def koniq(root: Path) -> None:
    """Twelve photographs: seven for training, two for validation, three for test."""
    names = [f"{1000 + 37 * i}.jpg" for i in range(12)]
    for i, name in enumerate(names):
        image(root / "1024x768" / name, i)
    header = ["image_name", "c1", "c2", "c3", "c4", "c5", "c_total", "MOS", "SD", "MOS_zscore"]
    rows = [[name, 1, 2, 3, 4, 5, 15, 1 + 0.3 * i, 0.5, 10 + 6.5 * i] for i, name in enumerate(names)]
    table(root / "koniq10k_scores_and_distributions.csv", header, rows)
    sets = [
        [name, 0, "training" if i < 7 else "validation" if i < 9 else "test"] for i, name in enumerate(names)
    ]
    table(root / "koniq10k_distributions_sets.csv", ["image_name", "MOS", "set"], sets)


def tid2013(root: Path) -> None:
    """Five originals, two distortions, two levels; case differs between list and files, as in the release."""
    lines = []
    for seed, (r, t, level) in enumerate((r, t, v) for r in range(1, 6) for t in (1, 9) for v in (1, 5)):
        name = f"i{r:02}_{t:02}_{level}.bmp"
        image(root / "distorted_images" / (name.upper() if seed % 3 else name), seed)
        lines.append(f"{0.5 + 0.3 * seed:.5f} {name if seed % 2 else name.replace('i', 'I', 1)}\n")
    (root / "mos_with_names.txt").write_text("".join(lines))


def kadid10k(root: Path) -> None:
    """Six originals, one distortion, two levels; the originals lie among the images."""
    rows = []
    for r in range(1, 7):
        image(root / "images" / f"I{r:02}.png", r)
        for level in (1, 5):
            name = f"I{r:02}_10_{level:02}.png"
            image(root / "images" / name, 10 * r + level)
            rows.append([name, f"I{r:02}.png", round(5 - 0.7 * level + 0.05 * r, 2), 0.5])
    table(root / "dmos.csv", ["dist_img", "ref_img", "dmos", "var"], rows)


def spaq(root: Path) -> None:
    names = [f"{i:05}.jpg" for i in range(1, 13)]
    for i, name in enumerate(names):
        image(root / "TestImage" / name, i)
    header = ["Image name", "MOS", "Brightness", "Colorfulness", "Contrast", "Noisiness", "Sharpness"]
    rows = [[name, 5.5 + 7 * i, 50, 51, 52, 53, 54 + i] for i, name in enumerate(names)]
    sheet(root / "Annotations" / "MOS and Image attribute scores.xlsx", [header, *rows])


def agiqa3k(root: Path) -> None:
    """Two images each of six prompts."""
    names = [f"midjourney_normal_{i:03}.jpg" for i in range(12)]
    for i, name in enumerate(names):
        image(root / "images" / name, i)
    header = [
        "name",
        "prompt",
        "adj1",
        "adj2",
        "style",
        "mos_quality",
        "std_quality",
        "mos_align",
        "std_align",
    ]
    rows = [
        [n, f"a, comma {i // 2}", "x", "", "y", 0.3 * i + 0.2, 0.1, 4 - 0.3 * i, 0.1]
        for i, n in enumerate(names)
    ]
    table(root / "data.csv", header, rows)


def livec(root: Path) -> None:
    """Seven training images of the raters, then twelve of the set."""
    names = [f"t{i}.bmp" for i in range(1, 8)] + [f"{i}.bmp" for i in range(3, 15)]
    for i, name in enumerate(names):
        image(root / "Images" / ("trainingImages" if i < 7 else "") / name, i)
    cells = np.empty((len(names), 1), dtype=object)
    cells[:, 0] = names
    (root / "Data").mkdir()
    scipy.io.savemat(root / "Data" / "AllImages_release.mat", {"AllImages_release": cells})
    mos = np.linspace(5, 90, len(names))[None]
    scipy.io.savemat(root / "Data" / "AllMOS_release.mat", {"AllMOS_release": mos})


CSIQ_NAMES = [
    (f"{original}.{kind}.{level}.png", original, folder, level)
    for original in ("1600", "aerial_city", "boston", "bridge")
    for kind, folder in (("AWGN", "awgn"), ("jpeg2000", "jpeg2000"), ("JPEG", "jpeg"))
    for level in (1, 4)
]


def csiq(root: Path) -> None:
    """The release: a folder a distortion, labels in an Excel sheet whose header is its fourth row."""
    types = {"awgn": "noise", "jpeg2000": "jpeg 2000", "jpeg": "jpeg"}
    rows: list[list[object]] = [
        [None] * 8,
        [None, "CSIQ"],
        [None] * 8,
        [None, None, None, "image", "dst_idx", "dst_type", "dst_lev", "dmos_std", "dmos"],
    ]
    for i, (name, original, folder, level) in enumerate(CSIQ_NAMES):
        image(root / "dst_imgs" / folder / name, i)
        label = 1600 if original == "1600" else original
        rows.append([None, None, None, label, 1, types[folder], level, 0.05, round(0.02 + 0.04 * i, 3)])
    sheet(root / "csiq.DMOS.xlsx", rows, "all_by_image")


def csiq_flat(root: Path) -> None:
    """All images in one folder with a text file of labels, as the hyperIQA loader wants it."""
    for i, (name, *_) in enumerate(CSIQ_NAMES):
        image(root / "dst_imgs_all" / name, i)
    lines = [f"{name} {round(0.02 + 0.04 * i, 3)}\n" for i, (name, *_) in enumerate(CSIQ_NAMES)]
    (root / "csiq_label.txt").write_text("".join(lines))


LIVE_COUNTS = {"jp2k": 227, "jpeg": 233, "wn": 174, "gblur": 174, "fastfading": 174}


def live(root: Path) -> None:
    """All 982 places of the release, since labels and images are matched by place; 203 of them originals."""
    total = sum(LIVE_COUNTS.values())
    generator = np.random.default_rng(0)
    originals = np.zeros(total, dtype=np.uint8)
    originals[generator.permutation(total)[:203]] = 1
    dmos = np.where(originals == 1, 0.0, generator.uniform(-2, 110, total))
    names = np.empty((1, total), dtype=object)
    names[0] = [f"ref{i % 29:02}.bmp" for i in range(total)]
    pixels = generator.integers(0, 256, (total, 2, 2, 3), dtype=np.uint8)
    place = 0
    for folder, count in LIVE_COUNTS.items():
        (root / folder).mkdir(parents=True)
        for i in range(1, count + 1):
            Image.fromarray(pixels[place]).save(root / folder / f"img{i}.bmp")
            place += 1
    scipy.io.savemat(root / "dmos_realigned.mat", {"dmos_new": dmos[None], "orgs": originals[None]})
    scipy.io.savemat(root / "refnames_all.mat", {"refnames_all": names})


def bid(root: Path) -> None:
    rows: list[list[object]] = [["Image Number", "Average Subjective Grade", "std"]]
    for i in range(1, 13):
        image(root / f"DatabaseImage{i:04}.JPG", i)
        rows.append([i, 0.25 * i, 0.1])
    sheet(root / "DatabaseGrades.xlsx", rows)


TREES: dict[str, Callable[[Path], None]] = {
    "koniq10k": koniq,
    "tid2013": tid2013,
    "kadid10k": kadid10k,
    "spaq": spaq,
    "agiqa3k": agiqa3k,
    "livec": livec,
    "csiq": csiq,
    "csiq_flat": csiq_flat,
    "live": live,
    "bid": bid,
}
