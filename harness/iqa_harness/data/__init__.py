"""Data sets: what an image set is, the embedded ones, and a user's own CSV."""

from iqa_harness.data.catalogue import check_data, list_data, open_data
from iqa_harness.data.image_set import DataCard, ImageRecord, ImageSet, Split

__all__ = ["DataCard", "ImageRecord", "ImageSet", "Split", "check_data", "list_data", "open_data"]
