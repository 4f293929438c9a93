"""Processes that write to a skill library at once, to measure how long they take and what a kill leaves.

    python -m embodied.evaluation.library_writer commits LIBRARY WRITERS COMMITS WINDOWS PAUSE SEED
    python -m embodied.evaluation.library_writer kills LIBRARY WRITERS KILLS SEED

One process forks the writers before any of them has opened the library, and prints one line of JSON.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from embodied.core import EvalReport
from embodied.skills.heads import Change, HeadMoved
from embodied.skills.library import LibraryError, SkillLibrary
from embodied.skills.manifest import HandbookFacet
from policies.checkpoint import write_checkpoint

CHECKED = 100  # kills between two looks at the whole library
FAMILIES = 40
PAUSE = 0.02  # s, mean, between two kills


def _fork(work: Callable[[int], None]) -> tuple[int, int]:
    """A child that does the work, given the writing end of a pipe: (process, reading end)."""
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        return child, reading
    code = 1
    try:
        os.close(reading)
        work(writing)
        code = 0
    finally:
        os._exit(code)


def _drained(pipe: int) -> bytes:
    """All that was written to a pipe, until its writer is gone."""
    parts = []
    while part := os.read(pipe, 1 << 16):
        parts.append(part)
    os.close(pipe)
    return b"".join(parts)


# ---------------------------------------------------------------------- commits
def commits(path: Path, writers: int, count: int, windows: int, pause: int, seed: int) -> dict[str, Any]:
    """`writers` processes move the head `count` times each, with pauses of `pause` ms in the mean, while another one
    reads.

    A commit's time is from the first try to its success; a try that finds the head moved is repeated on that head.
    """
    ready, go = os.pipe()  # closed by the parent to begin
    children = [_fork(lambda pipe, k=k: _commit(path, k, count, pause, seed, pipe, ready, go)) for k in range(writers)]
    stop, stopping = os.pipe()
    reader = _fork(lambda pipe: _read(path, seed, pipe, stop, (stopping, go)))
    for _, pipe in children:
        os.read(pipe, 1)
    begun = time.monotonic()
    os.close(go)
    answers = [json.loads(_drained(pipe)) for _, pipe in children]
    seconds = time.monotonic() - begun
    os.close(stopping)
    read = json.loads(_drained(reader[1]))
    for child, _ in (*children, reader):
        os.waitpid(child, 0)
    times = np.array([answer["ms"] for answer in answers])
    parts = np.array_split(times, windows, axis=1)
    return {
        "p99": [float(np.quantile(part, 0.99)) for part in parts], "median": float(np.median(times)),
        "worst": float(times.max()), "commits": int(times.size), "tries": sum(a["tries"] for a in answers),
        "seconds": seconds, "read_p99": float(np.quantile(read, 0.99)), "reads": len(read),
    }  # fmt: skip


def _commit(path: Path, number: int, count: int, pause: int, seed: int, pipe: int, ready: int, go: int) -> None:
    os.close(go)
    draws = np.random.default_rng([seed, number])
    with SkillLibrary.open(path) as library:
        versions = []
        with library.edit(durable=False) as tx:
            for i in range(count):
                book = HandbookFacet(when=f"writer {number}, entry {i}, seed {seed}")
                versions.append(tx.add_skill(f"written({(number * count + i) // 5})", None, handbook=book).version)
        os.write(pipe, b".")
        os.read(ready, 1)
        head, times, tries = library.head.id, [], 0
        for version in versions:
            time.sleep(float(draws.exponential(pause / 1000)))
            begun = time.perf_counter()
            while True:
                tries += 1
                try:
                    head = library.commit(head, Change(add=(version,))).id
                    break
                except HeadMoved as moved:
                    head = moved.current.id
            times.append(1000 * (time.perf_counter() - begun))
    os.write(pipe, json.dumps({"ms": times, "tries": tries}).encode())


def _read(path: Path, seed: int, pipe: int, stop: int, others: tuple[int, ...]) -> None:
    for end in others:  # a pipe ends when nobody holds its writing end
        os.close(end)
    times = []
    with SkillLibrary.open(path, readonly=True) as library:
        pinned = library.at()
        known = [version for versions in pinned.families.values() for version in versions]
        draws = np.random.default_rng(seed)
        while not select.select([stop], [], [], 0.005)[0] and known:
            begun = time.perf_counter()
            library.skill(known[draws.integers(len(known))])
            times.append(1000 * (time.perf_counter() - begun))
    os.write(pipe, json.dumps(times or [0.0]).encode())


# ---------------------------------------------------------------------- kills
def kills(path: Path, writers: int, count: int, seed: int) -> dict[str, Any]:
    """`count` times, at a random moment, one of the writers is killed (SIGKILL) and replaced.

    A writer says what was committed after it was: whatever was said must be there. Every so often, and at the end, the
    whole library is read: SQLite's own check, every hash, the chain of heads, and all that was said.
    """
    draws = np.random.default_rng(seed)
    policy = path.parent / "policy"
    write_checkpoint(policy, "random", {"number": seed}, {"weight": np.ones(8, np.float32)})
    SkillLibrary.open(path).close()
    said: set[tuple[str, int]] = set()
    rest: dict[int, bytes] = {}
    damage: list[str] = []
    total = 0

    def start() -> tuple[int, int]:
        nonlocal total
        total += 1
        return _fork(lambda pipe, k=total: _write(path, policy, seed * 100_000 + k, pipe))

    def hear(pipe: int) -> None:
        while select.select([pipe], [], [], 0)[0] and (part := os.read(pipe, 1 << 16)):
            *lines, rest[pipe] = (rest.get(pipe, b"") + part).split(b"\n")
            said.update((line.split()[0].decode(), int(line.split()[1])) for line in lines)

    alive = [start() for _ in range(writers)]
    checks = 0
    for killed in range(1, count + 1):
        time.sleep(float(draws.exponential(PAUSE)))
        for _, pipe in alive:
            hear(pipe)
        slot = int(draws.integers(writers))
        child, pipe = alive[slot]
        os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
        if not os.WIFSIGNALED(status):
            damage.append(f"a writer ended by itself with {os.waitstatus_to_exitcode(status)}")
        hear(pipe)
        rest.pop(pipe, None)
        os.close(pipe)
        if killed % CHECKED == 0 or killed == count:
            checks += 1
            damage += _damage(path, said)
        alive[slot] = start()
    for child, pipe in alive:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        hear(pipe)
        os.close(pipe)
    damage += _damage(path, said)
    with SkillLibrary.open(path) as library:
        swept = len(library.gc())
        heads, skills = library.head.id, len(library.skills())
    damage += _damage(path, said)
    return {"kills": count, "committed": len(said), "heads": heads, "skills": skills, "checks": checks + 2,
            "swept": swept, "damage": damage}  # fmt: skip


def _damage(path: Path, said: set[tuple[str, int]]) -> list[str]:
    """What is wrong with the library, in sentences; what was said since is looked for too."""
    try:
        with SkillLibrary.open(path, readonly=True) as library:
            library.verify()
            library._query("BEGIN")  # heads and members as of one moment: others go on writing
            there = {
                (version, head.id)
                for head in library.heads()
                for table in (head.changes.get("add", {}),)
                for versions in table.values()
                for version in versions
            }
            rows = library._query("SELECT version, head FROM members WHERE change = 'add'")
            counted = library._query("SELECT version FROM evidence GROUP BY version HAVING COUNT(*) = 2")
            evidence = {row[0] for row in counted}
    except LibraryError as error:
        return [str(error)]
    lost = [f"{version[:12]} of head {head} was committed and is not there" for version, head in said - there]
    lost += [f"{version[:12]} has lost its evidence" for version, _ in said if version not in evidence]
    if set(map(tuple, rows)) != there:
        lost.append("the heads and their members disagree")
    return lost


def _write(path: Path, policy: Path, seed: int, pipe: int) -> None:
    """Writes skills, evidence and heads until it is killed; says of each what was committed."""
    draws = np.random.default_rng(seed)
    with SkillLibrary.open(path) as library:
        for number in range(1 << 30):
            with library.edit(durable=False) as tx:
                whole = policy if draws.random() < 0.3 else None
                book = HandbookFacet(when=f"written by {seed} as {number}")
                skill = tx.add_skill(f"written({draws.integers(FAMILIES)})", whole, handbook=book)
                for purpose in ("gate", "confirm"):
                    success = np.arange(20) < draws.integers(10, 21)
                    tx.add_evidence(
                        skill.version, purpose, EvalReport("lit(lamp)", "", int(draws.integers(1 << 40)), success)
                    )
                head = tx.commit(library.head.id, Change(add=(skill.version,)))
            os.write(pipe, f"{skill.version} {head.id}\n".encode())


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        name, place, *numbers = sys.argv[1:]
        print(json.dumps({"commits": commits, "kills": kills}[name](Path(place), *map(int, numbers))))
