"""runtimed: a self-hosted Lambda."""

__version__ = "0.1.0"
