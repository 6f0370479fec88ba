"""What can go wrong in the conductor, and the exit code of everything that can go wrong anywhere.

HarnessError
├── DataError        an image, label file or data set that cannot be used (path, row, key)
├── TrainingError    a preset or training run that cannot go on
├── RunError         a run that cannot be planned, started or read back
└── NotComparable    two runs whose numbers cannot be held against each other

Exit codes of `iqa-harness`:

====  ==================================================================================
0     everything asked for was done
1     a check says no: a finding, not a failure
2     a question that cannot be asked: wrong usage of the command line (unknown option, missing
      argument), or `gate` and `baseline diff` on runs that are not comparable
3     bad input: unknown name, unreadable or damaged file, bad TOML, checkpoint of another model
4     partial: some cells failed, or a model cannot be measured; the others are stored and go on
70    a bug in iqa-harness or in a plugin, with its traceback
130   interrupted (Ctrl-C, SIGTERM); what was finished is stored, the same command goes on
141   who read the output has gone (`| head`): what was to be said was not, so no other code is given
====  ==================================================================================
"""

from enum import IntEnum

from iqa_errors import IQAError


class ExitCode(IntEnum):
    """Exit codes of the command line, documented above."""

    OK = 0
    FOUND = 1
    USAGE = 2
    NOT_COMPARABLE = 2
    BAD_INPUT = 3
    PARTIAL = 4
    BUG = 70
    INTERRUPTED = 130
    OUTPUT_CLOSED = 141


class HarnessError(IQAError):
    """Base of everything the conductor raises for a user's mistake."""


class DataError(HarnessError):
    """An image, a label file or a data set cannot be used."""


class TrainingError(HarnessError):
    """A preset or a training run cannot go on."""


class RunError(HarnessError):
    """A run cannot be planned, started or read back."""


class NotComparable(HarnessError):
    """Two runs differ in suite, data or models: their numbers cannot be held against each other."""
