"""Properties hold however busy the machine is: how long an example takes says nothing about it."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("machines", deadline=None)
settings.load_profile("machines")
