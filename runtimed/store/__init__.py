"""What is kept: the SQLite database and the code store."""
