-- schema_3: from version 2 to version 3: trainings made again with the same seed, by hinge reproduce; peeks and refusals
-- in the order in which they came, which the second of a clock does not tell.

ALTER TABLE peeks RENAME TO peeks_2;
CREATE TABLE peeks (
    suite INTEGER NOT NULL REFERENCES suites (id),
    done INTEGER NOT NULL,             -- declared runs that had ended
    verb TEXT NOT NULL,
    declared INTEGER NOT NULL,         -- of so many
    at TEXT NOT NULL,                  -- ISO 8601, UTC
    UNIQUE (suite, done, verb)
);
INSERT INTO peeks (suite, done, verb, declared, at) SELECT suite, done, verb, declared, at FROM peeks_2 ORDER BY at, done;
DROP TABLE peeks_2;

ALTER TABLE refusals RENAME TO refusals_2;
CREATE TABLE refusals (
    suite INTEGER NOT NULL REFERENCES suites (id),
    difference TEXT NOT NULL,
    at TEXT NOT NULL,
    UNIQUE (suite, difference)
);
INSERT INTO refusals (suite, difference, at) SELECT suite, difference, at FROM refusals_2 ORDER BY at, difference;
DROP TABLE refusals_2;

CREATE TABLE replicates (
    stage INTEGER NOT NULL REFERENCES stages (id),   -- the training
    at TEXT NOT NULL,                                -- ISO 8601, UTC
    host TEXT NOT NULL,
    equal INTEGER NOT NULL,                          -- 1: every loss and every weight, to the last bit
    step INTEGER,                                    -- the first whose loss differs; NULL: none does
    PRIMARY KEY (stage, at)
) WITHOUT ROWID;
