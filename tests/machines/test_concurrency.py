"""Shares of the account's concurrency: nobody gets what others have, and enough stays for those who have nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtimed.machines.concurrency import Refusal, Share, check, least_unreserved, unreserved

SHARE = st.builds(Share, reserved=st.none() | st.integers(0, 60), provisioned=st.integers(0, 60))


@given(st.integers(1, 3000), st.lists(SHARE, max_size=30))
def test_what_is_granted_one_after_the_other_leaves_enough(limit: int, asked: list[Share]) -> None:
    granted: list[Share] = []
    for share in asked:
        try:
            check(limit, share, granted)
        except Refusal:
            continue
        granted.append(share)
    assert unreserved(limit, granted) >= least_unreserved(limit)
    assert all(share.reserved is None or share.provisioned <= share.reserved for share in granted)


@given(st.integers(1, 3000), st.lists(SHARE, max_size=10))
def test_nothing_is_always_granted(limit: int, others: list[Share]) -> None:
    check(limit, Share(), others)
    check(limit, Share(reserved=0), others)


@pytest.mark.parametrize(
    ("share", "others", "fits"),
    [
        (Share(reserved=900), [], True),
        (Share(reserved=901), [], False),
        (Share(provisioned=900), [], True),
        (Share(reserved=500), [Share(provisioned=400)], True),
        (Share(reserved=501), [Share(provisioned=400)], False),
        (Share(reserved=500, provisioned=500), [Share(reserved=400, provisioned=300)], True),
        (Share(reserved=10, provisioned=11), [], False),
    ],
)
def test_lambda_s_numbers(share: Share, others: list[Share], fits: bool) -> None:
    """A thousand, of which a hundred stay."""
    try:
        check(1000, share, others)
    except Refusal:
        assert not fits
    else:
        assert fits


@given(st.integers(1, 3000), st.integers(0, 4000), st.lists(SHARE, max_size=20))
def test_what_stays_is_a_setting(limit: int, setting: int, asked: list[Share]) -> None:
    granted: list[Share] = []
    for share in asked:
        try:
            check(limit, share, granted, setting)
        except Refusal:
            continue
        granted.append(share)
    assert unreserved(limit, granted) >= (min(setting, limit) if setting else min(100, limit // 10))


def test_a_small_account_leaves_a_tenth() -> None:
    check(10, Share(reserved=9), [])
    with pytest.raises(Refusal, match="Take at most 9"):
        check(10, Share(reserved=10), [])
