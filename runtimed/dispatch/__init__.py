"""The dispatcher's clients: its tables, invocations, counters and log files."""
