"""The errors that are ours, as a tree.

Each is one line that names the thing (file, row, column, field) and the mend. The command line
prints that line and leaves with the error's `exit_code`.
"""


class FarmError(Exception):
    """Base of all errors a user can mend."""

    exit_code = 1


class BadInput(FarmError):
    """A file, table, setting or argument that cannot be used as given."""

    exit_code = 2


class Missing(BadInput):
    """Something asked for by name or key does not exist."""


class NotOpenAI(BadInput):
    """A judge that is asked by another protocol than OpenAI's."""


class Damaged(BadInput):
    """A finished artifact no longer has the content its manifest recorded."""


class StoreNotWritable(BadInput):
    """The store's folder cannot be written."""


class Unreachable(FarmError):
    """A store or a ledger on another machine does not answer; a rerun goes on."""


class BudgetReached(FarmError):
    """Spending stopped at the cap; everything bought so far is kept and a rerun goes on."""

    exit_code = 3


class Refused(FarmError):
    """A person refused the price of a plan; nothing was asked."""


class CrashedTooOften(FarmError):
    """A run that died each time it was begun again; what it had made is kept."""


class Unanswered(FarmError):
    """Some calls to a judge failed; what was answered is kept and a rerun asks the rest."""


class JudgeFailed(FarmError):
    """A judge failed its self-test."""

    exit_code = 4


class TrainingFailed(FarmError):
    """A loss or reward that is not a number, or data that cannot be learned from."""


class DoesNotFit(TrainingFailed):
    """A training would need more memory than there is; the line names the change that fits."""


class ContractBroken(TrainingFailed):
    """Training would learn from nonsense, or has done so; the line names rows and the mend."""


class WeightSyncFailed(ContractBroken):
    """The engine that samples does not hold the weights that were trained."""
