"""What savers say that they can do, and where savers with a name are found."""

from saver_conformance.claims.claim import Claim, claims

__all__ = ["Claim", "claims"]
