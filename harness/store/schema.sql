-- schema of the results database, version 1: every table, its meaning and its keys. Applied once, in one transaction,
-- followed by schema_2.sql and schema_3.sql.

-- A suite as first run, under one scale. What was decided then is frozen in declaration.
CREATE TABLE suites (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    scale TEXT NOT NULL,               -- '' as written
    path TEXT NOT NULL,
    question TEXT NOT NULL,
    preset TEXT NOT NULL,
    settings TEXT NOT NULL,            -- of the command line
    baseline TEXT NOT NULL,
    metric TEXT NOT NULL,
    margin REAL NOT NULL,
    test TEXT NOT NULL,
    alpha REAL NOT NULL,
    correction TEXT NOT NULL,
    resampling_seed INTEGER NOT NULL,
    options TEXT NOT NULL,             -- common to all variants, "key=value" lines
    dataset TEXT NOT NULL REFERENCES datasets (sha256),
    head TEXT NOT NULL,                -- the declaration but for seeds and variants
    declaration TEXT NOT NULL,
    declaration_sha256 TEXT NOT NULL,
    declared_at TEXT NOT NULL,
    UNIQUE (name, scale)
);

CREATE TABLE datasets (
    sha256 TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    vocab_size INTEGER NOT NULL,
    train_tokens INTEGER NOT NULL,
    validation_tokens INTEGER NOT NULL,
    bytes_per_token REAL,
    unigram_nll REAL                   -- nats per validation token
);

CREATE TABLE variants (
    id INTEGER PRIMARY KEY,
    suite INTEGER NOT NULL REFERENCES suites (id),
    position INTEGER NOT NULL,
    name TEXT NOT NULL,
    overrides TEXT NOT NULL,
    declaration TEXT NOT NULL,         -- what it changes in the common options
    late INTEGER NOT NULL,             -- 1: added after the declaration was frozen
    UNIQUE (suite, name)
);

CREATE TABLE seeds (
    suite INTEGER NOT NULL REFERENCES suites (id),
    position INTEGER NOT NULL,
    seed INTEGER NOT NULL,
    late INTEGER NOT NULL,
    PRIMARY KEY (suite, seed)
) WITHOUT ROWID;

-- A stage of work, shared by all runs that need the same; key is a hash of everything that can change its result.
CREATE TABLE stages (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL,                -- train, average, quantise, evaluate
    parent INTEGER REFERENCES stages (id),
    seed INTEGER NOT NULL,
    dataset TEXT NOT NULL REFERENCES datasets (sha256),
    backend TEXT NOT NULL,
    numerics INTEGER NOT NULL,
    status TEXT NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'running', 'done', 'failed', 'interrupted')),
    worker TEXT, host TEXT, pid INTEGER, heartbeat REAL,   -- who works on it, or did; heartbeat in Unix seconds
    started TEXT, finished TEXT,                           -- ISO 8601, UTC
    error TEXT,
    seconds REAL, work REAL,                               -- work: counted floating-point operations
    steps INTEGER, parameter_count INTEGER, final_loss REAL, tokens_per_second REAL,
    weights_sha256 TEXT, averaged_sha256 TEXT, trace_sha256 TEXT,
    quantise_seconds REAL, calibration_seconds REAL,
    environment INTEGER REFERENCES environments (id)
);
CREATE INDEX stages_by_work ON stages (kind, host, work) WHERE status = 'done';
CREATE INDEX stages_by_parent ON stages (parent);

CREATE TABLE runs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    suite INTEGER NOT NULL REFERENCES suites (id),
    variant INTEGER NOT NULL REFERENCES variants (id),
    seed INTEGER NOT NULL,
    key TEXT NOT NULL,
    late INTEGER NOT NULL,
    UNIQUE (variant, seed)
);
CREATE INDEX runs_by_suite ON runs (suite, seed);

CREATE TABLE run_options (
    run INTEGER NOT NULL REFERENCES runs (id),
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (run, name)
) WITHOUT ROWID;

-- part: train, evaluate raw, average, evaluate averaged, quantise, evaluate artifact; numbered in this order from 0.
CREATE TABLE run_stages (
    run INTEGER NOT NULL REFERENCES runs (id),
    part INTEGER NOT NULL,
    stage INTEGER NOT NULL REFERENCES stages (id),
    PRIMARY KEY (run, part)
) WITHOUT ROWID;
CREATE INDEX run_stages_by_stage ON run_stages (stage);

CREATE TABLE steps (
    stage INTEGER NOT NULL REFERENCES stages (id),
    step INTEGER NOT NULL,
    loss REAL NOT NULL,                -- nats per token
    multiplier REAL NOT NULL,          -- of the learning rates
    milliseconds REAL NOT NULL,
    tokens INTEGER NOT NULL,
    PRIMARY KEY (stage, step)
) WITHOUT ROWID;

CREATE TABLE evaluations (
    stage INTEGER PRIMARY KEY REFERENCES stages (id),
    bpb REAL NOT NULL,
    nll REAL NOT NULL,                 -- nats, summed
    nll_per_token REAL NOT NULL,
    bytes INTEGER NOT NULL,
    tokens INTEGER NOT NULL,
    seconds REAL NOT NULL
);

CREATE TABLE evaluation_blocks (
    stage INTEGER NOT NULL REFERENCES evaluations (stage),
    block INTEGER NOT NULL,
    nll REAL NOT NULL,
    bytes INTEGER NOT NULL,
    tokens INTEGER NOT NULL,
    PRIMARY KEY (stage, block)
) WITHOUT ROWID;

CREATE TABLE artifacts (
    stage INTEGER PRIMARY KEY REFERENCES stages (id),
    bytes INTEGER NOT NULL,
    raw_bytes INTEGER NOT NULL,        -- before compression
    sha256 TEXT NOT NULL
);

CREATE TABLE artifact_classes (
    stage INTEGER NOT NULL REFERENCES artifacts (stage),
    class TEXT NOT NULL,
    bytes INTEGER NOT NULL,            -- before compression, scales included
    parameters INTEGER NOT NULL,
    PRIMARY KEY (stage, class)
) WITHOUT ROWID;

CREATE TABLE stage_notes (
    stage INTEGER PRIMARY KEY REFERENCES stages (id),
    text TEXT NOT NULL
);

-- What made a result. Stages made under equal circumstances share an environment.
CREATE TABLE environments (
    id INTEGER PRIMARY KEY,
    sha256 TEXT NOT NULL UNIQUE
);

CREATE TABLE provenance (
    environment INTEGER NOT NULL REFERENCES environments (id),
    position INTEGER NOT NULL,
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (environment, position)
) WITHOUT ROWID;
