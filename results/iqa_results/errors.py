"""What can go wrong with stored results, as one tree.

ResultsError
├── BadPart        a Parquet part that is damaged or of another schema
│   └── OtherVersion   whole, but another version of iqa-harness wrote it
├── BadManifest    a manifest that is damaged or of another format
└── UnknownRun     no run of that name in the store
"""

from iqa_errors import IQAError


class ResultsError(IQAError):
    """Base of everything this package raises for a user's mistake or a damaged file."""


class BadPart(ResultsError):
    """A Parquet part is damaged, or its schema is not the one this version writes."""


class OtherVersion(BadPart):
    """A Parquet part is whole, and another version wrote it: that one can still read it."""


class BadManifest(ResultsError):
    """A manifest or baseline record is damaged, changed by hand, or of another format."""


class UnknownRun(ResultsError):
    """No run of that name is in the store."""
