"""The root of every error that is a user's to mend; it stands by itself so that each floor can have it.

IQAError
├── ModelError      iqa_models: a name, option, checkpoint or input
├── AttackError     iqa_attacks: a setting, or a model that no attack can use
├── SuiteError      iqa_suites: a suite's name or text
├── ResultsError    iqa_results: a run, part, manifest or baseline
├── ReportsError    iqa_reports: a frame or published value
└── HarnessError    iqa_harness: data, training, runs, comparisons

Each package's `errors` module draws its own branch. Beside it, `toml_text` and `json_text` read a user's
TOML and JSON within bounds, and `whole_file` writes a file whole, which several floors need.
"""


class IQAError(Exception):
    """Something a user can mend; the message says what, where and what to do."""
