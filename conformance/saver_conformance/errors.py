"""The errors of the suite; none of them accuses a saver."""

from __future__ import annotations


class HarnessFailedError(Exception):
    """The suite cannot judge anything in this environment; the message says what to look at."""


class UnknownSaverError(Exception):
    """The saver's address leads to no function."""


class Unavailable(RuntimeError):  # noqa: N818 - a status, as in the report
    """What a case needs is not installed here."""


class KeepError(Exception):
    """Copies cannot be kept where they are requested."""


class ReportFolderError(Exception):
    """No report can be written where it is requested."""


class ResultError(ValueError):
    """A file is no report."""


class ShardError(Exception):
    """A plan cannot be split as asked, or parts of different runs cannot be put together."""


class EnvironmentFailedError(Exception):
    """An environment cannot be made, or nothing can be judged in it; nobody is accused."""


class BisectError(Exception):
    """There is no release to find between the versions that are given."""


class ClaimsFileError(Exception):
    """A file of claims does not have the form that ``claims_file.py`` describes."""


class WaiverFileError(Exception):
    """Waivers have another form than ``verdict/waivers.py`` describes, or match nothing."""


class ComparisonError(ValueError):
    """Folders cannot be compared with each other; the message says what was expected."""


class StarterFileError(Exception):
    """A file of ``saver-conformance init`` is in the way of an existing one."""
