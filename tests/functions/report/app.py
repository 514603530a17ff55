"""Loads sales into SQLite in /tmp and answers with a report made by SQL; the database stays for the next call."""

import os
import sqlite3

PATH = "/tmp/sales.db"

SCHEMA = """
create table if not exists sale (
    id integer primary key, region text not null, month integer not null, cents integer not null
);
create index if not exists sale_region on sale (region, month);
"""

REPORT = """
select region, month, sum(cents) as total,
       sum(sum(cents)) over (partition by region order by month) as running,
       rank() over (partition by month order by sum(cents) desc) as place
from sale group by region, month order by region, month
"""


def connect():
    database = sqlite3.connect(PATH)
    database.row_factory = sqlite3.Row
    database.execute("pragma journal_mode = wal")
    database.executescript(SCHEMA)
    return database


def handler(event, context):
    fresh = not os.path.exists(PATH)
    database = connect()
    try:
        with database:
            database.executemany(
                "insert into sale (region, month, cents) values (:region, :month, :cents)", event.get("sales", [])
            )
        rows = [dict(row) for row in database.execute(REPORT)]
        (count,) = database.execute("select count(*) from sale").fetchone()
        (state,) = database.execute("pragma integrity_check").fetchone()
    finally:
        database.close()
    return {"fresh": fresh, "count": count, "report": rows, "integrity": state}
