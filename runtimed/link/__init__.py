"""Connections of the control protocol: packets, tables kept in step, levels. Below `sandbox` and `dispatch`, which
both use it."""
