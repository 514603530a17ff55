"""Names of functions: a name, a partial ARN or an ARN, each with an optional qualifier.

name                                              thumbnails        thumbnails:$LATEST
partial ARN                                       000000000000:function:thumbnails
ARN        arn:aws:lambda:us-east-1:000000000000:function:thumbnails:3
"""

from __future__ import annotations

import re

from msgspec import Struct

from runtimed.model import errors, quotas

LATEST = "$LATEST"
PARTITION = "aws"

# After the pattern of FunctionName in Lambda's service model.
_REFERENCE = re.compile(
    r"(?:arn:(?P<partition>aws[a-zA-Z-]*):lambda:(?P<region>[a-z]{2}(?:-gov)?-[a-z]+-\d):)?"
    r"(?:(?P<account>\d{12}):)?(?:function:)?"
    r"(?P<name>[a-zA-Z0-9_-]+)(?::(?P<qualifier>\$LATEST(?:\.PUBLISHED)?|[a-zA-Z0-9_-]+))?",
    re.ASCII,
)
_NAME = re.compile(r"[a-zA-Z0-9_-]+", re.ASCII)


class Identity(Struct, frozen=True, kw_only=True):
    """Whose functions these are: settings of the node."""

    account: str = "000000000000"
    region: str = "us-east-1"

    def function_arn(self, name: str, qualifier: str = "") -> str:
        arn = f"arn:{PARTITION}:lambda:{self.region}:{self.account}:function:{name}"
        return f"{arn}:{qualifier}" if qualifier else arn


class Reference(Struct, frozen=True):
    """A function as a request names it. An empty qualifier means that none was given."""

    name: str
    qualifier: str = ""


def parse(text: str, identity: Identity, qualifier: str = "") -> Reference:
    """Reads a function's name in any of its spellings; `qualifier` is the request's own, if it has one.

    Raises InvalidParameterValue for what is not a name, ResourceNotFound for an ARN of another account or region.
    """
    match = _REFERENCE.fullmatch(text)
    if match is None or len(text) > quotas.FUNCTION_REFERENCE_CHARACTERS:
        raise errors.InvalidParameterValue(
            f"FunctionName: {text[:80]!r} is not a function's name. "
            "Use letters, digits, hyphens and underscores, or an ARN."
        )
    name = match["name"]
    if len(name) > quotas.FUNCTION_NAME_CHARACTERS:
        raise errors.InvalidParameterValue(
            f"FunctionName: a name has at most {quotas.FUNCTION_NAME_CHARACTERS} characters, this one has {len(name)}."
        )
    if match["qualifier"] and qualifier and match["qualifier"] != qualifier:
        raise errors.InvalidParameterValue(
            f"Qualifier: {qualifier!r} contradicts {match['qualifier']!r} in FunctionName. Give one of them."
        )
    for ours, theirs, what in (
        (identity.account, match["account"], "account"),
        (identity.region, match["region"], "region"),
    ):
        if theirs is not None and theirs != ours:
            raise errors.ResourceNotFound(f"Function not found: {text} (this node is {what} {ours}).")
    return Reference(name, match["qualifier"] or qualifier)


def divide(text: str) -> tuple[str, str]:
    """A function's name in any of its spellings, and the qualifier behind it; what is no name is left whole."""
    match = _REFERENCE.fullmatch(text)
    qualifier = match["qualifier"] if match is not None else None
    return (text[: -len(qualifier) - 1], qualifier) if qualifier else (text, "")


def is_name(text: str) -> bool:
    """Whether this is a plain function name, as `CreateFunction` needs it."""
    return _NAME.fullmatch(text) is not None and len(text) <= quotas.FUNCTION_NAME_CHARACTERS
