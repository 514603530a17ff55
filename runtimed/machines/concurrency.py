"""Who may reserve how much of the account's concurrency: Lambda's rules. Pure.

What is reserved for a function is its own and its bound; what is provisioned for the versions of a function without a
reservation is taken out of the account as well; all other invocations share the rest, of which enough must stay.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

UNRESERVED_LEAST = 100
"""Lambda leaves so many to functions without a reservation (developer guide)..."""
UNRESERVED_SHARE = 10
"""...and we one part in so many, where that is less: an account here may have as little concurrency as it likes."""


class Share(Struct, frozen=True, kw_only=True):
    """One function's."""

    reserved: int | None = None
    provisioned: int = 0
    """Of all its versions."""

    @property
    def taken(self) -> int:
        """Out of the account's concurrency."""
        return self.provisioned if self.reserved is None else self.reserved


class Refusal(Exception):
    """Why not, as a sentence."""


def unreserved(limit: int, shares: Iterable[Share]) -> int:
    """What is left for all who have nothing of their own."""
    return max(0, limit - sum(share.taken for share in shares))


def least_unreserved(limit: int, setting: int = 0) -> int:
    """What stays for all who have nothing of their own; `setting`: so many, 0: Lambda's rule."""
    return min(setting, limit) if setting else min(UNRESERVED_LEAST, limit // UNRESERVED_SHARE)


def check(limit: int, share: Share, others: Iterable[Share], setting: int = 0) -> None:
    """Raises Refusal when a function may not have this share beside what the others have; `setting`: as above."""
    if share.reserved is not None and share.provisioned > share.reserved:
        raise Refusal(
            f"{share.provisioned} provisioned are more than the {share.reserved} reserved for the function. "
            "Provision fewer, or reserve more."
        )
    left = limit - sum(other.taken for other in others)
    least = least_unreserved(limit, setting)
    if share.taken and left - share.taken < least:
        raise Refusal(
            f"{share.taken} would leave {max(0, left - share.taken)} of the account's {limit} to functions without a "
            f"reservation, which must have at least {least}. Take at most {max(0, left - least)}, or raise "
            "limits.concurrency."
        )
