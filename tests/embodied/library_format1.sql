BEGIN TRANSACTION;
CREATE TABLE evidence (
  id INTEGER PRIMARY KEY AUTOINCREMENT, goal TEXT NOT NULL, version TEXT NOT NULL REFERENCES skills (version),
  kind TEXT NOT NULL CHECK (kind IN ('simulator', 'judge', 'language')), purpose TEXT NOT NULL CHECK (purpose IN ('screen', 'gate', 'confirm', 'regression')), origin TEXT NOT NULL CHECK (origin IN ('local', 'foreign')),
  seed INTEGER NOT NULL, n INTEGER NOT NULL CHECK (n > 0),
  successes INTEGER NOT NULL CHECK (successes BETWEEN 0 AND n),
  round INTEGER NOT NULL, versions TEXT NOT NULL,
  UNIQUE (version, goal, seed, kind, origin)
) STRICT;
INSERT INTO "evidence" VALUES(1,'open(drawer)','fc8c1bc768d173d2dbd677d3983e96356332509954fc768bcabf3d281f4f488b','simulator','gate','local',0,200,190,0,'{"mujoco":"4.0"}');
INSERT INTO "evidence" VALUES(2,'open(drawer)','fc8c1bc768d173d2dbd677d3983e96356332509954fc768bcabf3d281f4f488b','simulator','confirm','local',1,200,190,0,'{"mujoco":"4.0"}');
CREATE TABLE operators (
  schema TEXT NOT NULL, literal TEXT NOT NULL, role TEXT NOT NULL CHECK (role IN ('precondition', 'effect')),
  trials INTEGER NOT NULL, hits INTEGER NOT NULL CHECK (hits BETWEEN 0 AND trials),
  PRIMARY KEY (schema, literal, role)
) STRICT, WITHOUT ROWID;
INSERT INTO "operators" VALUES('open(drawer)','clear(red)','precondition',10,9);
CREATE TABLE rounds (
  round INTEGER PRIMARY KEY, ledger_offset INTEGER NOT NULL, store_offsets TEXT NOT NULL, state TEXT NOT NULL
) STRICT;
INSERT INTO "rounds" VALUES(0,10,'{"index":5}','{"next":"lamp"}');
CREATE TABLE settings (threshold REAL NOT NULL, z_squared REAL NOT NULL) STRICT;
INSERT INTO "settings" VALUES(0.8,3.84145882069412358816e+00);
CREATE TABLE skills (
  version TEXT PRIMARY KEY, schema TEXT NOT NULL, artifact TEXT NOT NULL, parent TEXT,
  conditioning TEXT NOT NULL, signature TEXT NOT NULL, provenance TEXT NOT NULL,
  created_round INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO "skills" VALUES('090b8b6765e32c520191907b50f158003668f767ded984530c10ef35b1a5c21b','open(drawer)','a76176cfdf20aa9348d1a0ac3163278e639c8e6eac2de23e6ff029bf0106d83a',NULL,'{"x":1}','{}','{"pack":"abababababababababababababababababababababababababababababababab"}',0);
INSERT INTO "skills" VALUES('225f7186de7d64af95cbcf4d6bd9130574c3b575a4048e381c8606cbf2b0b8d5','open(drawer)','a76176cfdf20aa9348d1a0ac3163278e639c8e6eac2de23e6ff029bf0106d83a','090b8b6765e32c520191907b50f158003668f767ded984530c10ef35b1a5c21b','{"x":2}','{}','{"seed":1}',0);
INSERT INTO "skills" VALUES('fc8c1bc768d173d2dbd677d3983e96356332509954fc768bcabf3d281f4f488b','open(drawer)','a76176cfdf20aa9348d1a0ac3163278e639c8e6eac2de23e6ff029bf0106d83a',NULL,'{}','{}','{"round":0}',0);
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
CREATE TRIGGER skills_update BEFORE UPDATE ON skills BEGIN SELECT RAISE(ABORT, 'skills are immutable'); END;
CREATE TRIGGER skills_delete BEFORE DELETE ON skills BEGIN SELECT RAISE(ABORT, 'skills are immutable'); END;
CREATE TRIGGER skills_replace BEFORE INSERT ON skills WHEN EXISTS (SELECT 1 FROM skills WHERE version = NEW.version) BEGIN SELECT RAISE(ABORT, 'skills are immutable'); END;
CREATE TRIGGER rounds_update BEFORE UPDATE ON rounds BEGIN SELECT RAISE(ABORT, 'rounds are immutable'); END;
CREATE TRIGGER rounds_delete BEFORE DELETE ON rounds BEGIN SELECT RAISE(ABORT, 'rounds are immutable'); END;
CREATE TRIGGER rounds_replace BEFORE INSERT ON rounds WHEN EXISTS (SELECT 1 FROM rounds WHERE round = NEW.round) BEGIN SELECT RAISE(ABORT, 'rounds are immutable'); END;
CREATE TRIGGER settings_update BEFORE UPDATE ON settings BEGIN SELECT RAISE(ABORT, 'settings are immutable'); END;
CREATE TRIGGER settings_delete BEFORE DELETE ON settings BEGIN SELECT RAISE(ABORT, 'settings are immutable'); END;
CREATE TRIGGER settings_replace BEFORE INSERT ON settings WHEN EXISTS (SELECT 1 FROM settings WHERE TRUE) BEGIN SELECT RAISE(ABORT, 'settings are immutable'); END;
CREATE TRIGGER evidence_update BEFORE UPDATE ON evidence BEGIN SELECT RAISE(ABORT, 'evidence are immutable'); END;
CREATE TRIGGER evidence_delete BEFORE DELETE ON evidence BEGIN SELECT RAISE(ABORT, 'evidence are immutable'); END;
CREATE TRIGGER evidence_replace BEFORE INSERT ON evidence WHEN EXISTS (SELECT 1 FROM evidence WHERE id = NEW.id OR (version = NEW.version AND goal = NEW.goal AND seed = NEW.seed AND kind = NEW.kind AND origin = NEW.origin)) BEGIN SELECT RAISE(ABORT, 'evidence are immutable'); END;
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('evidence',2);
COMMIT;