"""The tables of a library's SQLite file, in the words of SQLite: format 2, and how a file of format 1 becomes one.

What was found out is immutable: triggers refuse to change or delete a row of any table but the operators' counts. What
follows from it is not stored at all: the views derive it on every read. ``status`` says of every version and goal that
was measured here, ``standing`` of every version,

=============  ======================================================================================================
revoked        a row in ``revocations`` names it
quarantined    it came from another principal, and the simulator has not seen it succeed at anything here
deprecated     the last change of heads about it took it out (a newer one or better ones replaced it), or a regression
               set, recorded after the confirmation began, disproved it
candidate      its gate has not been passed
probation      the gate was passed, the confirmation was not; or the last decision about it is "canary"
admitted       gate and confirmation were both passed, here, by the simulator
=============  ======================================================================================================

the first that holds (of a version: the best that it has on any goal). Wilson's lower bound reaches p exactly when
k >= p n and (k - p n)^2 >= z^2 p (1 - p) n, its upper bound lies below p exactly when k < p n and
(k - p n)^2 > z^2 p (1 - p) n: see `embodied.skills.statistics`.
"""

from __future__ import annotations

from embodied.core import EVIDENCE_KINDS, LOCAL, OPERATOR_ROLES, PURPOSES

FORMAT = 2
CAPACITY = 10  # versions of a family in the head, unless the file was made with another number
STATUSES = ("admitted", "probation", "candidate", "quarantined", "deprecated", "revoked")  # the best first
TRUST = ("own", "trusted", "untrusted")
SKILL_COLUMNS = (
    "schema, artifact, conditioning, signature, parent, provenance, created_round, facets, principal, tainted"
)
EVIDENCE_COLUMNS = "goal, version, kind, purpose, seed, n, successes, round, origin, versions, probe, trace"


def _choice(column: str, values: tuple[str, ...]) -> str:
    return f"{column} TEXT NOT NULL CHECK ({column} IN ({', '.join(map(repr, values))}))"


def _passed(purpose: str) -> str:
    n, k = f"{purpose}_n", f"{purpose}_k"
    return (
        f"({n} > 0 AND {k} >= threshold * {n}"
        f" AND ({k} - threshold * {n}) * ({k} - threshold * {n}) >= z_squared * threshold * (1 - threshold) * {n})"
    )


_SETTINGS = f"""CREATE TABLE settings (
  threshold REAL NOT NULL, z_squared REAL NOT NULL, capacity INTEGER NOT NULL DEFAULT {CAPACITY}
) STRICT"""
_SKILLS = f"""CREATE TABLE skills (
  version TEXT PRIMARY KEY, schema TEXT NOT NULL, artifact TEXT NOT NULL, parent TEXT,
  conditioning TEXT NOT NULL, signature TEXT NOT NULL, provenance TEXT NOT NULL,
  created_round INTEGER NOT NULL, facets TEXT NOT NULL DEFAULT '{{}}',
  principal TEXT NOT NULL DEFAULT '{LOCAL}', tainted INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID"""
_EVIDENCE = f"""CREATE TABLE evidence (
  id INTEGER PRIMARY KEY AUTOINCREMENT, goal TEXT NOT NULL, version TEXT NOT NULL REFERENCES skills (version),
  {_choice("kind", EVIDENCE_KINDS)}, {_choice("purpose", PURPOSES)}, {_choice("origin", ("local", "foreign"))},
  seed INTEGER NOT NULL, n INTEGER NOT NULL CHECK (n > 0),
  successes INTEGER NOT NULL CHECK (successes BETWEEN 0 AND n),
  round INTEGER NOT NULL, versions TEXT NOT NULL, probe TEXT, trace TEXT,
  UNIQUE (version, goal, seed, kind, origin)
) STRICT"""
_OPERATORS = f"""CREATE TABLE operators (
  schema TEXT NOT NULL, literal TEXT NOT NULL, {_choice("role", OPERATOR_ROLES)},
  trials INTEGER NOT NULL, hits INTEGER NOT NULL CHECK (hits BETWEEN 0 AND trials),
  PRIMARY KEY (schema, literal, role)
) STRICT, WITHOUT ROWID"""
_ROUNDS = """CREATE TABLE rounds (
  round INTEGER PRIMARY KEY, ledger_offset INTEGER NOT NULL, store_offsets TEXT NOT NULL, state TEXT NOT NULL
) STRICT"""

NEW = {  # the tables that format 1 has not: name -> statement
    "principals": f"""CREATE TABLE principals (
  id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, public_key TEXT, {_choice("trust", TRUST)}
) STRICT""",
    "gate_decisions": """CREATE TABLE gate_decisions (
  id INTEGER PRIMARY KEY AUTOINCREMENT, goal TEXT NOT NULL, base_head INTEGER NOT NULL, candidates TEXT NOT NULL,
  numbers TEXT NOT NULL, verdict TEXT NOT NULL, reason TEXT NOT NULL, round INTEGER NOT NULL
) STRICT""",
    "decided": """CREATE TABLE decided (
  candidate TEXT NOT NULL, decision INTEGER NOT NULL REFERENCES gate_decisions (id), PRIMARY KEY (candidate, decision)
) STRICT, WITHOUT ROWID""",
    "usage": """CREATE TABLE usage (
  id INTEGER PRIMARY KEY AUTOINCREMENT, version TEXT NOT NULL REFERENCES skills (version), goal TEXT NOT NULL,
  head INTEGER NOT NULL, success INTEGER NOT NULL CHECK (success IN (0, 1)), steps INTEGER NOT NULL CHECK (steps >= 0)
) STRICT""",
    "lessons": """CREATE TABLE lessons (
  id INTEGER PRIMARY KEY AUTOINCREMENT, schema TEXT NOT NULL, literals TEXT NOT NULL, reason TEXT NOT NULL,
  principal TEXT NOT NULL, tainted INTEGER NOT NULL
) STRICT""",
    "revocations": """CREATE TABLE revocations (
  version TEXT PRIMARY KEY REFERENCES skills (version), principal TEXT NOT NULL, reason TEXT NOT NULL
) STRICT, WITHOUT ROWID""",
    "heads": """CREATE TABLE heads (
  id INTEGER PRIMARY KEY, parent INTEGER NOT NULL, digest TEXT NOT NULL, principal TEXT NOT NULL,
  changes TEXT NOT NULL, CHECK (id = parent + 1)
) STRICT""",
    "members": f"""CREATE TABLE members (
  version TEXT NOT NULL REFERENCES skills (version), head INTEGER NOT NULL REFERENCES heads (id),
  family TEXT NOT NULL, {_choice("change", ("add", "remove"))}, PRIMARY KEY (version, head)
) STRICT, WITHOUT ROWID""",
}
_INDEXES = (
    "CREATE INDEX members_by_head ON members (head)",
    "CREATE INDEX members_by_family ON members (family)",
    "CREATE INDEX usage_by_version ON usage (version)",
)
_KEYS = {  # what makes two rows of a table the same one
    "skills": "version = NEW.version",
    "rounds": "round = NEW.round",
    "settings": "TRUE",
    "evidence": "id = NEW.id OR (version = NEW.version AND goal = NEW.goal AND seed = NEW.seed AND kind = NEW.kind "
    "AND origin = NEW.origin)",
    "principals": "id = NEW.id",
    "gate_decisions": "id = NEW.id",
    "decided": "candidate = NEW.candidate AND decision = NEW.decision",
    "usage": "id = NEW.id",
    "lessons": "id = NEW.id",
    "revocations": "version = NEW.version",
    "heads": "id = NEW.id",
    "members": "version = NEW.version AND head = NEW.head",
}


def _immutable(table: str) -> list[str]:
    return [
        f"CREATE TRIGGER {table}_{word} BEFORE {event} BEGIN SELECT RAISE(ABORT, '{table} are immutable'); END"
        for word, event in {
            "update": f"UPDATE ON {table}",
            "delete": f"DELETE ON {table}",
            "replace": f"INSERT ON {table} WHEN EXISTS (SELECT 1 FROM {table} WHERE {_KEYS[table]})",
        }.items()
    ]


_LEFT = "(SELECT change FROM members AS c WHERE c.version = s.version ORDER BY head DESC LIMIT 1) = 'remove'"
_REVOKED = "EXISTS (SELECT 1 FROM revocations AS x WHERE x.version = s.version)"
_UNSEEN = f"""s.principal <> '{LOCAL}' AND NOT EXISTS (SELECT 1 FROM evidence AS e
      WHERE e.version = s.version AND e.kind = 'simulator' AND e.origin = 'local' AND e.successes > 0)"""
_CANARY = """(SELECT verdict FROM decided AS d JOIN gate_decisions AS g ON g.id = d.decision
      WHERE d.candidate = s.version ORDER BY d.decision DESC LIMIT 1) = 'canary'"""


def standing_where(condition: str) -> str:
    """The rows of ``standing`` for the versions that a condition on the column ``version`` chooses. Said here it finds
    them by index; said of the view it would be asked of every row there is.
    """
    return f"""SELECT version, MAX(schema) AS schema, MAX(created_round) AS created_round, MAX(principal) AS principal,
    MAX(tainted) AS tainted, CASE MIN(rank) WHEN 0 THEN 'revoked' WHEN 1 THEN 'quarantined' WHEN 2 THEN 'admitted'
      WHEN 3 THEN 'probation' WHEN 5 THEN 'deprecated' ELSE 'candidate' END AS status
  FROM (
    SELECT version, NULL AS schema, NULL AS created_round, NULL AS principal, NULL AS tainted, CASE status
      WHEN 'revoked' THEN 0 WHEN 'quarantined' THEN 1 WHEN 'admitted' THEN 2 WHEN 'probation' THEN 3
      WHEN 'candidate' THEN 4 ELSE 5 END AS rank FROM status WHERE {condition}
    UNION ALL
    SELECT version, schema, created_round, principal, tainted, CASE WHEN {_REVOKED} THEN 0 WHEN {_UNSEEN} THEN 1
      WHEN {_LEFT} THEN 5 ELSE 6 END AS rank FROM skills AS s WHERE {condition})
  GROUP BY version"""


VIEWS = {
    "measured": """CREATE VIEW measured AS
  SELECT version, goal,
    SUM(n * (purpose = 'gate')) AS gate_n, SUM(successes * (purpose = 'gate')) AS gate_k,
    SUM(n * (purpose = 'confirm')) AS confirm_n, SUM(successes * (purpose = 'confirm')) AS confirm_k,
    MIN(CASE purpose WHEN 'confirm' THEN id END) AS confirmed
  FROM evidence WHERE kind = 'simulator' AND origin = 'local' GROUP BY version, goal""",
    "status": f"""CREATE VIEW status AS
  SELECT m.*, s.schema, s.created_round, CASE
    WHEN {_REVOKED} THEN 'revoked'
    WHEN {_UNSEEN} THEN 'quarantined'
    WHEN {_LEFT} THEN 'deprecated'
    WHEN NOT {_passed("gate")} THEN 'candidate'
    WHEN NOT {_passed("confirm")} THEN 'probation'
    WHEN EXISTS (SELECT 1 FROM evidence AS r
      WHERE r.version = m.version AND r.goal = m.goal AND r.purpose = 'regression' AND r.kind = 'simulator'
        AND r.origin = 'local' AND r.id > m.confirmed AND r.successes < threshold * r.n
        AND (r.successes - threshold * r.n) * (r.successes - threshold * r.n)
          > z_squared * threshold * (1 - threshold) * r.n) THEN 'deprecated'
    WHEN {_CANARY} THEN 'probation'
    ELSE 'admitted' END AS status
  FROM measured AS m JOIN skills AS s USING (version), settings""",
    "standing": f"CREATE VIEW standing AS {standing_where('TRUE')}",
}
_LOCAL_PRINCIPAL = f"INSERT INTO principals (name, public_key, trust) VALUES ('{LOCAL}', NULL, 'own')"

CREATE = (
    _SETTINGS, _SKILLS, _EVIDENCE, _OPERATORS, _ROUNDS, *NEW.values(), *_INDEXES, *VIEWS.values(),
    *(trigger for table in _KEYS for trigger in _immutable(table)), _LOCAL_PRINCIPAL,
)  # fmt: skip

_PACK = "json_extract(provenance, '$.pack')"  # format 1 knew by this alone that a skill came from elsewhere
MIGRATE = (  # a file of format 1 to format 2, within one transaction
    "DROP VIEW status", "DROP VIEW measured", "DROP TRIGGER skills_update",
    f"ALTER TABLE settings ADD COLUMN capacity INTEGER NOT NULL DEFAULT {CAPACITY}",
    "ALTER TABLE skills ADD COLUMN facets TEXT NOT NULL DEFAULT '{}'",
    f"ALTER TABLE skills ADD COLUMN principal TEXT NOT NULL DEFAULT '{LOCAL}'",
    "ALTER TABLE skills ADD COLUMN tainted INTEGER NOT NULL DEFAULT 0",
    f"UPDATE skills SET principal = 'pack:' || substr({_PACK}, 1, 16) WHERE {_PACK} IS NOT NULL",
    f"""UPDATE skills SET tainted = 1 WHERE version IN (
      WITH RECURSIVE reached (version) AS (SELECT version FROM skills WHERE principal <> '{LOCAL}'
        UNION SELECT child.version FROM skills AS child JOIN reached ON child.parent = reached.version)
      SELECT version FROM reached)""",
    "ALTER TABLE evidence RENAME TO evidence_1",
    *(f"DROP TRIGGER evidence_{word}" for word in ("update", "delete", "replace")),
    _EVIDENCE,
    "INSERT INTO evidence (id, goal, version, kind, purpose, origin, seed, n, successes, round, versions) "
    "SELECT id, goal, version, kind, purpose, origin, seed, n, successes, round, versions FROM evidence_1 ORDER BY id",
    "DROP TABLE evidence_1",
    *NEW.values(), *_INDEXES, *VIEWS.values(), _immutable("skills")[0],
    *(trigger for table in ("evidence", *NEW) for trigger in _immutable(table)), _LOCAL_PRINCIPAL,
    f"""INSERT INTO principals (name, public_key, trust)
      SELECT DISTINCT principal, NULL, 'untrusted' FROM skills WHERE principal <> '{LOCAL}'""",
)  # fmt: skip

SHADOW = (  # what makes a read-only file of format 1 look like format 2, within this connection
    f"CREATE TEMP VIEW settings AS SELECT threshold, z_squared, {CAPACITY} AS capacity FROM main.settings",
    f"""CREATE TEMP VIEW skills AS SELECT version, schema, artifact, parent, conditioning, signature, provenance,
      created_round, '{{}}' AS facets,
      CASE WHEN {_PACK} IS NULL THEN '{LOCAL}' ELSE 'pack:' || substr({_PACK}, 1, 16) END AS principal,
      {_PACK} IS NOT NULL AS tainted FROM main.skills""",
    """CREATE TEMP VIEW evidence AS SELECT id, goal, version, kind, purpose, origin, seed, n, successes, round,
      versions, NULL AS probe, NULL AS trace FROM main.evidence""",
    *(sql.replace("CREATE TABLE", "CREATE TEMP TABLE", 1).replace("AUTOINCREMENT", "") for sql in NEW.values()),
    *(sql.replace("CREATE VIEW", "CREATE TEMP VIEW", 1) for sql in VIEWS.values()),
    _LOCAL_PRINCIPAL,
)
