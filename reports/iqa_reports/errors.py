"""What can go wrong with a report, as one tree.

ReportsError
└── InconsistentRun   manifest, table and intervals do not belong together
"""

from iqa_errors import IQAError


class ReportsError(IQAError):
    """Base of everything this package raises."""


class InconsistentRun(ReportsError):
    """The table or the intervals do not belong to the manifest, or name one value twice."""
