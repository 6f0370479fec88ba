"""What can go wrong with stored results, as one tree.

ResultsError
├── BadPart        a Parquet part that is damaged or of another schema
├── BadManifest    a manifest that is damaged or of another format
└── UnknownRun     no run of that name in the store
"""

from iqa_errors import IQAError


class ResultsError(IQAError):
    """Base of everything this package raises for a user's mistake or a damaged file."""


class BadPart(ResultsError):
    """A Parquet part is damaged, or its schema is not the one this version writes."""


class BadManifest(ResultsError):
    """A run's manifest is damaged, or its format is not the one this version writes."""


class UnknownRun(ResultsError):
    """No run of that name is in the store."""
