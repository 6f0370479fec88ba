"""Data sets: what an image set is, the embedded ones, public ones in a folder, and a user's own."""

from iqa_harness.data.arrays import ArrayImageSet
from iqa_harness.data.catalogue import check_data, list_data, open_data
from iqa_harness.data.image_set import DataCard, ImageRecord, ImageSet, Split

__all__ = [
    "ArrayImageSet",
    "DataCard",
    "ImageRecord",
    "ImageSet",
    "Split",
    "check_data",
    "list_data",
    "open_data",
]
