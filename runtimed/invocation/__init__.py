"""Invocations and their logs, as the API offers them."""
