"""The database's schema, as the steps that led to it. A step that has been released is never changed: append another.

functions   one row a function, kept under a uid of its own: a name can be given again, a uid never is.
            `serving`: the target that invocations reach. `next`: the one being rolled out, or the one that failed
            when none ever served. `generation` grows with each change of the route.
targets     what is deployed: code and configuration as they were at one moment, never changed. Its id names it to the
            dispatcher, and its launch plan to the launcher; AUTOINCREMENT, so that an id never comes back.
versions    published versions of functions, each with a target of its own. `functions.published`: the last number that
            was given; none comes back, whatever becomes of its version.
aliases     names that lead to one version of a function, `$LATEST` or a number in decimal, and with the probability
            `weight` to an `alternate` one; `generation` grows each time the dispatcher is told.
facts       single values about the database itself.
event_rules how the events of a qualifier are retried ($LATEST, a version's number, an alias's name); a row without a
            qualifier says that the function's queue stands still. The id names it to the dispatcher and never comes
            back; `generation` as with keys.
keys        what callers over TCP show; the secret is sealed. Its id names it to the dispatcher and never comes back;
            `generation` grows each time the dispatcher is told of it.
concurrency executions that are reserved for a function (its qualifier is empty) or provisioned for one of its versions,
            under its number or the name of an alias.
scalable_targets
            between what the provisioned concurrency of a version is scaled, and how; policy, cooldowns, activity and
            scheduled actions are JSON, of the types in store/scaling.py.
"""

from __future__ import annotations

from runtimed.store.database import Migration

MIGRATIONS: tuple[Migration, ...] = (
    (
        """
        CREATE TABLE facts (
            name TEXT PRIMARY KEY,
            value BLOB NOT NULL
        ) STRICT, WITHOUT ROWID
        """,
        """
        CREATE TABLE functions (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            uid BLOB NOT NULL UNIQUE CHECK (length(uid) = 16),
            name TEXT NOT NULL UNIQUE,
            generation INTEGER NOT NULL,
            revision_id TEXT NOT NULL,
            modified_ms INTEGER NOT NULL,
            state TEXT NOT NULL,
            reason TEXT NOT NULL,
            reason_code TEXT NOT NULL,
            serving INTEGER REFERENCES targets (id),
            next INTEGER REFERENCES targets (id)
        ) STRICT
        """,
        """
        CREATE TABLE targets (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            function INTEGER NOT NULL REFERENCES functions (id) ON DELETE CASCADE,
            definition BLOB NOT NULL,
            environment BLOB NOT NULL,
            zip TEXT NOT NULL,
            package TEXT NOT NULL
        ) STRICT
        """,
        "CREATE INDEX targets_of_function ON targets (function)",
    ),
    (
        """
        CREATE TABLE keys (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            key_id TEXT NOT NULL UNIQUE,
            secret BLOB NOT NULL,
            description TEXT NOT NULL,
            generation INTEGER NOT NULL,
            created_ms INTEGER NOT NULL,
            modified_ms INTEGER NOT NULL
        ) STRICT
        """,
    ),
    (
        """
        CREATE TABLE event_rules (
            function INTEGER PRIMARY KEY REFERENCES functions (id) ON DELETE CASCADE,
            retries INTEGER,
            age_s INTEGER,
            configured INTEGER NOT NULL,
            paused INTEGER NOT NULL,
            generation INTEGER NOT NULL,
            modified_ms INTEGER NOT NULL
        ) STRICT
        """,
    ),
    (
        """
        CREATE TABLE concurrency (
            function INTEGER NOT NULL REFERENCES functions (id) ON DELETE CASCADE,
            qualifier TEXT NOT NULL,
            executions INTEGER NOT NULL,
            modified_ms INTEGER NOT NULL,
            PRIMARY KEY (function, qualifier)
        ) STRICT, WITHOUT ROWID
        """,
    ),
    (
        """
        CREATE TABLE scalable_targets (
            function INTEGER NOT NULL REFERENCES functions (id) ON DELETE CASCADE,
            qualifier TEXT NOT NULL,
            least INTEGER NOT NULL,
            most INTEGER NOT NULL,
            policy BLOB,
            cooldowns BLOB NOT NULL,
            pending TEXT NOT NULL,
            activity BLOB,
            actions BLOB NOT NULL,
            PRIMARY KEY (function, qualifier)
        ) STRICT, WITHOUT ROWID
        """,
    ),
    ("ALTER TABLE event_rules ADD COLUMN delay_ms INTEGER",),
    (
        "ALTER TABLE functions ADD COLUMN published INTEGER NOT NULL DEFAULT 0",
        """
        CREATE TABLE versions (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            function INTEGER NOT NULL REFERENCES functions (id) ON DELETE CASCADE,
            number INTEGER NOT NULL,
            target INTEGER NOT NULL REFERENCES targets (id),
            state TEXT NOT NULL,
            reason TEXT NOT NULL,
            reason_code TEXT NOT NULL,
            revision_id TEXT NOT NULL,
            modified_ms INTEGER NOT NULL,
            UNIQUE (function, number)
        ) STRICT
        """,
        "CREATE INDEX versions_of_target ON versions (target)",
        """
        CREATE TABLE aliases (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            function INTEGER NOT NULL REFERENCES functions (id) ON DELETE CASCADE,
            name TEXT NOT NULL,
            version TEXT NOT NULL,
            alternate TEXT,
            weight REAL NOT NULL,
            description TEXT NOT NULL,
            revision_id TEXT NOT NULL,
            generation INTEGER NOT NULL,
            modified_ms INTEGER NOT NULL,
            UNIQUE (function, name)
        ) STRICT
        """,
    ),
    (
        """
        CREATE TABLE qualified_rules (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            function INTEGER NOT NULL REFERENCES functions (id) ON DELETE CASCADE,
            qualifier TEXT NOT NULL,
            retries INTEGER,
            age_s INTEGER,
            delay_ms INTEGER,
            generation INTEGER NOT NULL,
            modified_ms INTEGER NOT NULL,
            UNIQUE (function, qualifier)
        ) STRICT
        """,
        """
        INSERT INTO qualified_rules (function, qualifier, retries, age_s, delay_ms, generation, modified_ms)
            SELECT function, '$LATEST', retries, age_s, delay_ms, 1, modified_ms FROM event_rules WHERE configured
        """,
        """
        INSERT INTO qualified_rules (function, qualifier, generation, modified_ms)
            SELECT function, '', 1, modified_ms FROM event_rules WHERE paused
        """,
        "DROP TABLE event_rules",
        "ALTER TABLE qualified_rules RENAME TO event_rules",
    ),
)
