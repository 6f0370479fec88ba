"""What can go wrong with a report, as one tree.

ReportsError
├── InconsistentRun   manifest, table and intervals do not belong together
└── BadFrame          a frame of results, costs, ... has other columns than documented
"""

from iqa_errors import IQAError


class ReportsError(IQAError):
    """Base of everything this package raises."""


class InconsistentRun(ReportsError):
    """The table or the intervals do not belong to the manifest, or name one value twice."""


class BadFrame(ReportsError):
    """A frame lacks documented columns, or has other types in them."""
