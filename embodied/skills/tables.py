"""The library's SQLite file: opening, creating and migrating it. Its tables: `embodied.skills.schema`.

The file is in WAL mode: readers never wait, and see what was committed before their statement; writers take turns. A
whole file of an older format becomes one of this format in one transaction when it is opened for writing; opened
read-only it is left as it is, and looks like one.
"""

from __future__ import annotations

import os
import random
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from embodied.core import ADMISSION_THRESHOLD
from embodied.skills.artifacts import LibraryError
from embodied.skills.schema import CAPACITY, CREATE, FORMAT, MIGRATE, SHADOW
from embodied.skills.statistics import CONFIDENCE, quantile

APPLICATION = 0x454D4253  # "EMBS" in the file's header
Z_SQUARED = quantile(CONFIDENCE) ** 2  # two-sided 95 %, as in every report
PATIENCE = 30.0  # seconds that a transaction waits for other writers
CHECKED = 32 << 20  # bytes up to which a file is read for damage when it is opened
CHECKPOINT = 4000  # pages of 4 KiB in the WAL before a commit moves them into the file; a rare and slow commit


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


def connect(path: Path, readonly: bool, threshold: float | None, capacity: int | None = None) -> sqlite3.Connection:
    """Open or create the library's file; LibraryError where it is damaged, foreign, newer or has another
    threshold or capacity.

    `threshold` and `capacity` are written into a new file (0.8 and 10 when None) and compared with those of an old
    one.
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
            connection = sqlite3.connect(target, timeout=PATIENCE, isolation_level=None, uri=readonly)
            for pragma in (
                "foreign_keys=ON",
                "recursive_triggers=ON",
                "trusted_schema=OFF",
                "synchronous=FULL",
                "temp_store=MEMORY",
                f"wal_autocheckpoint={CHECKPOINT}",
            ):
                connection.execute(f"PRAGMA {pragma}")
            if not readonly:
                connection.execute("PRAGMA journal_mode=WAL")
                _create(connection, path, ADMISSION_THRESHOLD if threshold is None else threshold, capacity)
            _check(connection, path, threshold, capacity)
    except BaseException:
        if connection is not None:
            connection.close()
        raise
    return connection


def begin(connection: sqlite3.Connection, durable: bool) -> None:
    """Begin to write, once all others have ended. Not durable: a loss of power may undo the transaction, as a whole,
    with whatever follows it; a killed process never does.

    SQLite's own waiting grows to 100 ms a turn; short random turns keep many writers' longest waits short.
    """
    connection.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
    connection.execute("PRAGMA busy_timeout=0")
    deadline = time.monotonic() + PATIENCE
    try:
        while True:
            try:
                connection.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(random.uniform(0.0002, 0.002))
    finally:
        connection.execute(f"PRAGMA busy_timeout={round(1000 * PATIENCE)}")


def _create(connection: sqlite3.Connection, path: Path, threshold: float, capacity: int | None) -> None:
    """Make the tables in a file that has none, or bring those of format 1 up to date, in one transaction."""
    if not 0.0 <= threshold <= 1.0:
        raise LibraryError(f"a threshold of {threshold} for {path} is no success rate; it must lie in 0 … 1")
    if capacity is not None and capacity < 1:
        raise LibraryError(f"a capacity of {capacity} versions a family for {path} keeps nothing; at least 1")
    empty, old = "SELECT COUNT(*) = 0 FROM sqlite_schema", "PRAGMA user_version"
    if not connection.execute(empty).fetchone()[0] and connection.execute(old).fetchone()[0] != 1:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        if connection.execute(empty).fetchone()[0]:
            _all(connection, CREATE)
            settings = (threshold, Z_SQUARED, CAPACITY if capacity is None else capacity)
            connection.execute("INSERT INTO settings VALUES (?, ?, ?)", settings)
            connection.execute(f"PRAGMA application_id={APPLICATION}")
            connection.execute(f"PRAGMA user_version={FORMAT}")
        elif _is_first_format(connection):
            _quick_check(connection, path)
            _all(connection, MIGRATE)
            connection.execute(f"PRAGMA user_version={FORMAT}")
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _all(connection: sqlite3.Connection, statements: Iterable[str]) -> None:
    for statement in statements:
        connection.execute(statement)


def _is_first_format(connection: sqlite3.Connection) -> bool:
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    return application == APPLICATION and connection.execute("PRAGMA user_version").fetchone()[0] == 1


def _check(connection: sqlite3.Connection, path: Path, threshold: float | None, capacity: int | None) -> None:
    """LibraryError unless this is a sound library of a format that is read, and of our threshold and capacity."""
    if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION:
        raise LibraryError(f"{path} is a SQLite file but no skill library; name another file")
    found = connection.execute("PRAGMA user_version").fetchone()[0]
    if found > FORMAT:
        raise LibraryError(
            f"the library {path} is of format {found}, this version reads formats 1 and {FORMAT}; "
            "open it with the version that wrote it, or a newer one"
        )
    _quick_check(connection, path)
    if found == 1:
        _all(connection, SHADOW)
    stored, room = connection.execute("SELECT threshold, capacity FROM settings").fetchone()
    if threshold is not None and threshold != stored:
        raise LibraryError(
            f"the library {path} admits at {stored}, not at {threshold}; keep that threshold or start a new run"
        )
    if capacity is not None and capacity != room:
        raise LibraryError(f"the library {path} keeps {room} versions a family, not {capacity}; keep that number")


def _quick_check(connection: sqlite3.Connection, path: Path) -> None:
    """LibraryError where SQLite finds damage. A large file is not read for it: `SkillLibrary.verify` does that."""
    if path.stat().st_size > CHECKED:
        return
    report = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if report != "ok":
        raise LibraryError(f"the library {path} is damaged ({' '.join(report.split())}); {_RESCUE}")
