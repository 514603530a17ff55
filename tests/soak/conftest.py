"""The long forms use the same node and neighbour as the short ones."""

from tests.security.abuse.conftest import abused, stage

__all__ = ["abused", "stage"]
