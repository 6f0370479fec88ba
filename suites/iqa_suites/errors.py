"""What can go wrong with a suite, as one tree.

SuiteError
├── UnknownSuite   no suite of that name ships, and no file is at that path
└── BadSuite       the TOML is broken, or a key is unknown, missing or out of range
"""

from iqa_errors import IQAError


class SuiteError(IQAError):
    """Base of everything this package raises for a user's mistake."""


class UnknownSuite(SuiteError):
    """No suite of that name ships, and no file is at that path."""


class BadSuite(SuiteError):
    """The TOML is broken, or a key is unknown, missing or out of range."""
