"""The one error that says: nobody is accused, the suite itself does not work here."""

from __future__ import annotations


class HarnessFailedError(Exception):
    """The suite cannot judge anything in this environment; the message says what to look at."""
