"""Decisions without IO: each file one machine, a literal table and `on(event) -> commands`."""
