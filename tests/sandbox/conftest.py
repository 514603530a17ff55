from __future__ import annotations

import pytest

from tests.sandbox.jail import Jail, find


@pytest.fixture(scope="session")
def jail() -> Jail:
    return Jail(find())
