"""Thin adapters between the outside and `api`: decode, call, encode, map errors. No resource is named in them."""
