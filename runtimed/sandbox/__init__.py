"""The launcher's client: launch plans, runtimes, and programs of ours run in a jail."""
