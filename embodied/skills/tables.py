"""The library's SQLite file: its tables, and opening it.

What was found out (skills, evidence, rounds) is immutable: triggers refuse to change or delete a row. Whether
a skill is admitted is not stored at all: the view ``status`` derives it from the evidence on every read.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from embodied.core import ADMISSION_THRESHOLD, EVIDENCE_KINDS, OPERATOR_ROLES, PURPOSES
from embodied.skills.artifacts import LibraryError
from embodied.skills.statistics import CONFIDENCE, quantile

APPLICATION = 0x454D4253  # "EMBS" in the file's header
FORMAT = 1
SKILL_COLUMNS = "schema, artifact, conditioning, signature, parent, provenance, created_round"
EVIDENCE_COLUMNS = "goal, version, kind, purpose, seed, n, successes, round, origin, versions"
Z_SQUARED = quantile(CONFIDENCE) ** 2  # two-sided 95 %, as in every report


def _choice(column: str, values: tuple[str, ...]) -> str:
    return f"{column} TEXT NOT NULL CHECK ({column} IN ({', '.join(map(repr, values))}))"


def _immutable(table: str, same: str) -> str:
    return "".join(
        f"CREATE TRIGGER {table}_{word} BEFORE {event} BEGIN SELECT RAISE(ABORT, '{table} are immutable'); END;\n"
        for word, event in {
            "update": f"UPDATE ON {table}",
            "delete": f"DELETE ON {table}",
            "replace": f"INSERT ON {table} WHEN EXISTS (SELECT 1 FROM {table} WHERE {same})",
        }.items()
    )


# Wilson's lower bound reaches p exactly when k >= p n and (k - p n)^2 >= z^2 p (1 - p) n, its upper bound
# lies below p exactly when k < p n and (k - p n)^2 > z^2 p (1 - p) n: see embodied.skills.statistics.
TABLES = f"""
CREATE TABLE settings (threshold REAL NOT NULL, z_squared REAL NOT NULL) STRICT;
CREATE TABLE skills (
  version TEXT PRIMARY KEY, schema TEXT NOT NULL, artifact TEXT NOT NULL, parent TEXT,
  conditioning TEXT NOT NULL, signature TEXT NOT NULL, provenance TEXT NOT NULL,
  created_round INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE evidence (
  id INTEGER PRIMARY KEY AUTOINCREMENT, goal TEXT NOT NULL, version TEXT NOT NULL REFERENCES skills (version),
  {_choice("kind", EVIDENCE_KINDS)}, {_choice("purpose", PURPOSES)}, {_choice("origin", ("local", "foreign"))},
  seed INTEGER NOT NULL, n INTEGER NOT NULL CHECK (n > 0),
  successes INTEGER NOT NULL CHECK (successes BETWEEN 0 AND n),
  round INTEGER NOT NULL, versions TEXT NOT NULL,
  UNIQUE (version, goal, seed, kind, origin)
) STRICT;
CREATE TABLE operators (
  schema TEXT NOT NULL, literal TEXT NOT NULL, {_choice("role", OPERATOR_ROLES)},
  trials INTEGER NOT NULL, hits INTEGER NOT NULL CHECK (hits BETWEEN 0 AND trials),
  PRIMARY KEY (schema, literal, role)
) STRICT, WITHOUT ROWID;
CREATE TABLE rounds (
  round INTEGER PRIMARY KEY, ledger_offset INTEGER NOT NULL, store_offsets TEXT NOT NULL, state TEXT NOT NULL
) STRICT;
CREATE VIEW measured AS
  SELECT version, goal,
    SUM(n * (purpose = 'gate')) AS gate_n, SUM(successes * (purpose = 'gate')) AS gate_k,
    SUM(n * (purpose = 'confirm')) AS confirm_n, SUM(successes * (purpose = 'confirm')) AS confirm_k,
    MIN(CASE purpose WHEN 'confirm' THEN id END) AS confirmed
  FROM evidence WHERE kind = 'simulator' AND origin = 'local' GROUP BY version, goal;
CREATE VIEW status AS
  SELECT m.*, s.schema, s.created_round, CASE
    WHEN NOT (gate_n > 0 AND gate_k >= threshold * gate_n
        AND (gate_k - threshold * gate_n) * (gate_k - threshold * gate_n)
          >= z_squared * threshold * (1 - threshold) * gate_n
      AND confirm_n > 0 AND confirm_k >= threshold * confirm_n
        AND (confirm_k - threshold * confirm_n) * (confirm_k - threshold * confirm_n)
          >= z_squared * threshold * (1 - threshold) * confirm_n) THEN 'candidate'
    WHEN EXISTS (SELECT 1 FROM evidence AS r
      WHERE r.version = m.version AND r.goal = m.goal AND r.purpose = 'regression' AND r.kind = 'simulator'
        AND r.origin = 'local' AND r.id > m.confirmed AND r.successes < threshold * r.n
        AND (r.successes - threshold * r.n) * (r.successes - threshold * r.n)
          > z_squared * threshold * (1 - threshold) * r.n) THEN 'retired'
    ELSE 'admitted' END AS status
  FROM measured AS m JOIN skills AS s USING (version), settings;
{_immutable("skills", "version = NEW.version")}
{_immutable("rounds", "round = NEW.round")}
{_immutable("settings", "TRUE")}
{
    _immutable(
        "evidence",
        "id = NEW.id OR (version = NEW.version AND goal = NEW.goal AND seed = NEW.seed AND kind = NEW.kind "
        "AND origin = NEW.origin)",
    )
}
"""


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn an error of SQLite into a LibraryError of one sentence: where, what, what to do."""
    try:
        yield
    except sqlite3.IntegrityError as error:
        raise LibraryError(f"the library {path} refuses this: {error}; record something new instead") from error
    except sqlite3.OperationalError as error:
        if "locked" in str(error) or "busy" in str(error):
            advice = "another process is writing it, wait for that one to end"
        elif "readonly" in str(error):
            advice = "it was opened read-only, open it for writing"
        else:
            advice = "check the disk's free space and the file's permissions"
        raise LibraryError(f"the library {path} cannot be used ({error}): {advice}") from error
    except sqlite3.DatabaseError as error:
        raise LibraryError(f"the library {path} is damaged ({error}); {_RESCUE}") from error


_RESCUE = "restore it and its -wal file from a copy, or start a new run"


def connect(path: Path, readonly: bool, threshold: float | None) -> sqlite3.Connection:
    """Open or create the library's file; LibraryError where it is damaged, foreign, newer or has another
    threshold.

    `threshold` is written into a new file (0.8 when None) and compared with that of an old one.
    """
    if readonly and not path.is_file():
        raise LibraryError(f"there is no library at {path}; `embodied run` makes one")
    if path.is_file() and path.stat().st_size == 0 and any((path.parent / "artifacts").glob("??/*")):
        raise LibraryError(f"the library {path} is empty although it has artifacts: it was cut short; {_RESCUE}")
    connection = None
    try:
        with translated(path):
            if not readonly:
                path.parent.mkdir(parents=True, exist_ok=True)
            target = f"{path.resolve().as_uri()}?mode=ro" if readonly else str(path)
            if readonly and not os.access(path.parent, os.W_OK) and not Path(f"{path}-wal").exists():
                target += "&immutable=1"  # a folder that takes no lock file either, such as a disc
            connection = sqlite3.connect(target, timeout=5.0, isolation_level=None, uri=readonly)
            for pragma in (
                "foreign_keys=ON",
                "recursive_triggers=ON",
                "trusted_schema=OFF",
                "synchronous=FULL",
            ):
                connection.execute(f"PRAGMA {pragma}")
            if not readonly:
                connection.execute("PRAGMA journal_mode=WAL")
                _create(connection, path, ADMISSION_THRESHOLD if threshold is None else threshold)
            _check(connection, path, threshold)
    except BaseException:
        if connection is not None:
            connection.close()
        raise
    return connection


def _create(connection: sqlite3.Connection, path: Path, threshold: float) -> None:
    """Make the tables in a file that has none, in one transaction."""
    if not 0.0 <= threshold <= 1.0:
        raise LibraryError(f"a threshold of {threshold} for {path} is no success rate; it must lie in 0 … 1")
    connection.execute("BEGIN IMMEDIATE")
    try:
        if not connection.execute("SELECT COUNT(*) FROM sqlite_schema").fetchone()[0]:
            statement = ""
            for piece in TABLES.split(";"):
                statement += piece + ";"
                if sqlite3.complete_statement(statement):
                    connection.execute(statement)
                    statement = ""
            connection.execute("INSERT INTO settings VALUES (?, ?)", (threshold, Z_SQUARED))
            connection.execute(f"PRAGMA application_id={APPLICATION}")
            connection.execute(f"PRAGMA user_version={FORMAT}")
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _check(connection: sqlite3.Connection, path: Path, threshold: float | None) -> None:
    """LibraryError unless this is a sound library of our format and threshold."""
    if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION:
        raise LibraryError(f"{path} is a SQLite file but no skill library; name another file")
    found = connection.execute("PRAGMA user_version").fetchone()[0]
    if found != FORMAT:
        raise LibraryError(f"the library {path} is of format {found}, this version reads format {FORMAT}")
    report = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if report != "ok":
        raise LibraryError(f"the library {path} is damaged ({' '.join(report.split())}); {_RESCUE}")
    stored = connection.execute("SELECT threshold FROM settings").fetchone()[0]
    if threshold is not None and threshold != stored:
        raise LibraryError(
            f"the library {path} admits at {stored}, not at {threshold}; keep that threshold or start a new run"
        )
