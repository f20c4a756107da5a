-- schema_3: from version 2 to version 3: trainings that were made again with the same seed, by hinge reproduce.

CREATE TABLE replicates (
    stage INTEGER NOT NULL REFERENCES stages (id),   -- the training
    at TEXT NOT NULL,                                -- ISO 8601, UTC
    host TEXT NOT NULL,
    equal INTEGER NOT NULL,                          -- 1: every loss and every weight, to the last bit
    step INTEGER,                                    -- the first whose loss differs; NULL: none does
    PRIMARY KEY (stage, at)
) WITHOUT ROWID;
