"""Lambda's REST API. The dispatcher reads requests and knows who sends them; what is no invocation comes here with its
connection (`server`), is read (`protocol`, `body`), found in the table of operations (`router`), performed, answered
(`answers`), and the connection closed."""
