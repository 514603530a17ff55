"""Names of functions in all their spellings."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtimed.model import errors
from runtimed.model.arn import Identity, Reference, is_name, parse

IDENTITY = Identity()
ARN = "arn:aws:lambda:us-east-1:000000000000:function:thumb"


@pytest.mark.parametrize(
    ("text", "name", "qualifier"),
    [
        ("thumb", "thumb", ""),
        ("thumb:$LATEST", "thumb", "$LATEST"),
        ("thumb:3", "thumb", "3"),
        ("thumb:live", "thumb", "live"),
        ("function:thumb", "thumb", ""),
        ("000000000000:function:thumb", "thumb", ""),
        ("000000000000:thumb", "thumb", ""),
        (ARN, "thumb", ""),
        (f"{ARN}:$LATEST.PUBLISHED", "thumb", "$LATEST.PUBLISHED"),
        ("x" * 64, "x" * 64, ""),
    ],
)
def test_spellings(text: str, name: str, qualifier: str) -> None:
    assert parse(text, IDENTITY) == Reference(name, qualifier)


@pytest.mark.parametrize(
    "text",
    ["", " ", "a b", "a/b", "a.b", "ä", "a:b:c", ":a", "a:", "arn:aws:lambda", "x" * 65, "thumb\n", f"{ARN}:a:b"],
)
def test_what_is_no_name(text: str) -> None:
    with pytest.raises(errors.InvalidParameterValue, match="FunctionName"):
        parse(text, IDENTITY)


@pytest.mark.parametrize("text", ["111111111111:function:thumb", ARN.replace("us-east-1", "eu-west-1")])
def test_functions_of_others_do_not_exist_here(text: str) -> None:
    with pytest.raises(errors.ResourceNotFound, match="this node is"):
        parse(text, IDENTITY)


def test_a_qualifier_stands_in_one_place() -> None:
    assert parse("thumb", IDENTITY, "3").qualifier == "3"
    assert parse("thumb:3", IDENTITY, "3").qualifier == "3"
    with pytest.raises(errors.InvalidParameterValue, match="contradicts"):
        parse("thumb:3", IDENTITY, "4")


@given(st.from_regex(r"[a-zA-Z0-9_-]{1,64}", fullmatch=True))
def test_an_arn_leads_back_to_its_name(name: str) -> None:
    assert is_name(name)
    assert parse(IDENTITY.function_arn(name), IDENTITY) == Reference(name)
    assert parse(IDENTITY.function_arn(name, "$LATEST"), IDENTITY) == Reference(name, "$LATEST")


@given(st.text(max_size=80))
def test_any_text_is_a_name_or_refused(text: str) -> None:
    try:
        assert is_name(parse(text, IDENTITY).name)
    except errors.ApiError:
        pass
