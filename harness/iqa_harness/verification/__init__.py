"""Is a run what it says? Nothing stored is believed.

The manifest is held against the suite's text and plan, against the models and images it names; rows against
the plan and each other; tables against rows. The checks of every model, all its clean scores and a sample
of its attacks are made again, in the process that verifies, which is never the one that attacked.
"""

from iqa_harness.verification.finding import Finding, cell_name
from iqa_harness.verification.run import Verified, require_entrants, verify_run

__all__ = ["Finding", "Verified", "cell_name", "require_entrants", "verify_run"]
