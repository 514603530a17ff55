"""Invocation traces: readers for the layouts of the public Azure Functions data sets, and a generator that draws
functions from what is published about them."""
