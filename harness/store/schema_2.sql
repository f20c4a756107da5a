-- schema_2: from version 1 to version 2: what a reader must know beside the figures, and where they were made.

-- Figures shown before all that was declared was done, without declared looks. The same verb at the same figures is one.
CREATE TABLE peeks (
    suite INTEGER NOT NULL REFERENCES suites (id),
    done INTEGER NOT NULL,             -- declared runs that had ended
    verb TEXT NOT NULL,
    declared INTEGER NOT NULL,         -- of so many
    at TEXT NOT NULL,                  -- ISO 8601, UTC
    PRIMARY KEY (suite, done, verb)
) WITHOUT ROWID;

-- Changed declarations under the name of a frozen one, which were refused.
CREATE TABLE refusals (
    suite INTEGER NOT NULL REFERENCES suites (id),
    difference TEXT NOT NULL,
    at TEXT NOT NULL,
    PRIMARY KEY (suite, difference)
) WITHOUT ROWID;

-- The machine that made a finished stage, or the drawn one of the simulated backend.
ALTER TABLE stages ADD COLUMN node TEXT;
UPDATE stages SET node = coalesce((SELECT 'simulated node ' || p.value FROM provenance p
    WHERE p.environment = stages.environment AND p.name = 'simulated node'), host) WHERE status = 'done';
