"""What runtimed speaks of: requests, responses, errors, names and limits. Pure: no IO, no clock, no randomness."""
