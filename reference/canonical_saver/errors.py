"""What can go wrong, in one small hierarchy.

Every error says what was expected, what was found and what to do. The same error is raised on every
rank: the message names the rank on which it first happened.
"""


class SaveError(RuntimeError):
    """The model was not saved; what lay in the output folder before is whole.

    Or else the new model is whole and was not put in its place: the message says so, and how to.
    """


class RequestError(SaveError, ValueError):
    """The save was requested with a value that has no meaning; nothing was written."""


class WeightsError(SaveError):
    """The model's weights could not be named or found on this rank."""


class WriteError(SaveError):
    """The file system refused a write."""


class VerifyError(SaveError):
    """What was written is not what was to be written."""


class ProofError(SaveError):
    """A folder is not the model that it was compared with, or cannot be read."""


class LostRankError(SaveError):
    """A rank has died, or was never there: the ranks can no longer agree on anything."""


def describe(error: BaseException) -> str:
    """Say an error in one line: its class and its message."""
    text = str(error).strip()
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
