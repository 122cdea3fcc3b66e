-- Tables of the first schema, one group a subject. Every row names its operator and every key starts with
-- it. Constraints repeat the invariants of the code, so that a mistake there stops at the database. What can't be said
-- as a constraint is in 0001_first.triggers.sql, rights and row-level security in 0001_first.rights.sql.
-- Money is in minor units (bigint) with the currency beside it; times are instants, hours whole UTC hours.

-- Site -----------------------------------------------------------------------------------------------------------------

CREATE TABLE operator (
    operator text PRIMARY KEY,
    -- '*' is the installation itself: parties, and keys that hold for every operator.
    CONSTRAINT operator_id_is_an_id CHECK (operator = '*' OR operator ~ '^[a-z0-9][a-z0-9._-]{0,62}$')
);
COMMENT ON TABLE operator IS 'Registry of operators; ids only, the one table that is read without a setting.';
INSERT INTO operator VALUES ('*');

CREATE TABLE site_document (
    operator text NOT NULL REFERENCES operator,
    kind text NOT NULL,
    id text NOT NULL,
    valid_from date NOT NULL,       -- -infinity: a first version, in force from ever
    valid_until date,               -- exclusive
    body json NOT NULL,             -- scalars as the text that stood in the file, keys in its order (jsonb would sort them)
    applied_at timestamptz NOT NULL,
    places jsonb NOT NULL DEFAULT '{}',     -- where its keys stand: path -> file:line, as the path was given
    PRIMARY KEY (operator, kind, id, valid_from),
    CONSTRAINT site_document_kind CHECK
        (kind IN ('operator', 'node', 'customer', 'tariff', 'contract', 'party', 'share')),
    -- A version that ends before it begins would never be in force, and would hide the one before it.
    CONSTRAINT site_document_ends_after_it_begins CHECK (valid_until > valid_from),
    -- Parties share in revenue of any operator; everything else has one owner.
    CONSTRAINT site_document_owner CHECK ((kind = 'party') = (operator = '*')),
    CONSTRAINT site_document_body_is_an_object CHECK (json_typeof(body) = 'object')
);
COMMENT ON TABLE site_document IS 'What operators declared: every version of every site document.';

-- What issued documents rest on can't be changed, but a person may declare that it was wrong, and say why. Then the
-- version's place is taken, and what stood there is kept here.
CREATE TABLE superseded (
    operator text NOT NULL REFERENCES operator,
    kind text NOT NULL,
    id text NOT NULL,
    valid_from date NOT NULL,
    superseded_at timestamptz NOT NULL,
    valid_until date,
    body json NOT NULL,
    applied_at timestamptz NOT NULL,
    places jsonb NOT NULL,
    reason text NOT NULL,
    PRIMARY KEY (operator, kind, id, valid_from, superseded_at),
    FOREIGN KEY (operator, kind, id, valid_from) REFERENCES site_document (operator, kind, id, valid_from),
    CONSTRAINT superseded_has_a_reason CHECK (reason <> '')
);
COMMENT ON TABLE superseded IS 'Versions of site documents whose place another took, and why.';

CREATE TABLE subject (
    operator text NOT NULL REFERENCES operator,
    id uuid NOT NULL,               -- 128 random bits: all that sealed events carry
    kind text NOT NULL,
    slug text NOT NULL,             -- the id as the user wrote it; a key's own id for keys that we made
    parent uuid,                    -- the customer of a project or a key
    PRIMARY KEY (operator, id),
    FOREIGN KEY (operator, parent) REFERENCES subject (operator, id),
    -- The same slug is the same subject, whoever makes it first.
    CONSTRAINT subject_slug UNIQUE (operator, kind, parent, slug),
    CONSTRAINT subject_kind CHECK (kind IN ('customer', 'project', 'key')),
    CONSTRAINT subject_parent_is_a_customers CHECK ((kind = 'customer') = (parent IS NULL)),
    CONSTRAINT subject_slug_is_not_empty CHECK (slug <> '')
);
COMMENT ON TABLE subject IS 'The one erasable table: which customer, project or key an opaque id stands for.';
-- A customer's id is unique in an installation, so that a document or an import can't mean two of them.
CREATE UNIQUE INDEX subject_customer_slug ON subject (slug) WHERE kind = 'customer';

CREATE TABLE api_key (
    operator text NOT NULL REFERENCES operator,
    id uuid NOT NULL,
    customer uuid,
    project uuid,
    role text,
    secret_sha256 bytea NOT NULL,
    created_at timestamptz NOT NULL,
    expires_at timestamptz,
    revoked_at timestamptz,
    PRIMARY KEY (operator, id),
    -- A secret opens one door: its digest finds one key in the whole installation.
    CONSTRAINT api_key_secret UNIQUE (secret_sha256),
    FOREIGN KEY (operator, customer) REFERENCES subject (operator, id),
    FOREIGN KEY (operator, project) REFERENCES subject (operator, id),
    CONSTRAINT api_key_is_a_customers_or_a_roles CHECK (num_nonnulls(customer, role) = 1),
    CONSTRAINT api_key_project_has_a_customer CHECK (project IS NULL OR customer IS NOT NULL),
    CONSTRAINT api_key_role CHECK (role IN ('operator', 'finance', 'compliance', 'auditor')),
    -- Customers belong to one operator; only a role may span the installation.
    CONSTRAINT api_key_customer_has_an_operator CHECK (customer IS NULL OR operator <> '*'),
    CONSTRAINT api_key_holds_a_digest CHECK (octet_length(secret_sha256) = 32)
);
COMMENT ON TABLE api_key IS 'API keys; of the secret only its SHA-256 (256 random bits need no slow hash).';

-- Streams --------------------------------------------------------------------------------------------------------------

CREATE TABLE lane (
    operator text NOT NULL REFERENCES operator,
    node text NOT NULL,
    lane text NOT NULL,
    kind text NOT NULL,
    enrolled_at timestamptz NOT NULL,
    key_rank integer NOT NULL DEFAULT 0,    -- of the key that signed the last accepted seal (lane_key)
    epoch text,                     -- of the last accepted batch; null before the first
    number bigint,
    head text,                      -- the last accepted seal's hash
    last_sequence bigint NOT NULL DEFAULT 0,
    complete_to timestamptz,
    opened bigint NOT NULL DEFAULT 0,
    closed bigint NOT NULL DEFAULT 0,
    ended boolean NOT NULL DEFAULT false,
    last_accepted_at timestamptz,
    PRIMARY KEY (operator, node, lane),
    CONSTRAINT lane_kind CHECK (kind IN ('sidecar', 'import')),
    -- The high-water mark is one thing: either nothing was accepted yet, or all of it stands.
    CONSTRAINT lane_mark_is_whole CHECK
        (num_nonnulls(epoch, number, head, complete_to, last_accepted_at) IN (0, 5)),
    CONSTRAINT lane_numbers CHECK (number >= 0 AND last_sequence >= 0 AND opened >= 0 AND closed >= 0)
);
COMMENT ON TABLE lane IS 'Enrolled lanes and their high-water marks; locked FOR UPDATE while a batch is accepted.';

CREATE TABLE batch (
    operator text NOT NULL,
    node text NOT NULL,
    lane text NOT NULL,
    epoch text NOT NULL,
    number bigint NOT NULL,
    hash text NOT NULL,
    previous text NOT NULL,
    first bigint NOT NULL,
    last bigint NOT NULL,
    events bigint NOT NULL,
    complete_to timestamptz NOT NULL,
    requests bigint NOT NULL,
    prompt_tokens bigint NOT NULL,
    cached_tokens bigint NOT NULL,
    completion_tokens bigint NOT NULL,
    reasoning_tokens bigint NOT NULL,
    generated_tokens bigint NOT NULL,
    generated_reasoning_tokens bigint NOT NULL,
    audio_seconds bigint NOT NULL,
    unwitnessed_requests bigint NOT NULL,
    path text NOT NULL,             -- of body and seal in the archive, without the suffix
    bytes bigint NOT NULL,
    accepted_at timestamptz NOT NULL,
    root_checked boolean NOT NULL DEFAULT false,
    -- It follows another seal than the one it names, by a person's decision (decision.after).
    adopted boolean NOT NULL DEFAULT false,
    final boolean NOT NULL DEFAULT false,   -- the lane ended with it
    -- Dense numbers: another batch of the same number is a fork, and is held.
    PRIMARY KEY (operator, node, lane, epoch, number),
    FOREIGN KEY (operator, node, lane) REFERENCES lane,
    CONSTRAINT batch_epoch_is_128_bits CHECK (epoch ~ '^[0-9a-f]{32}$'),
    CONSTRAINT batch_hash_is_sha256 CHECK (hash ~ '^[0-9a-f]{64}$'),
    CONSTRAINT batch_previous CHECK (previous = 'genesis' OR previous ~ '^[0-9a-f]{64}$'),
    CONSTRAINT batch_number CHECK (number >= 0),
    -- Sequence numbers have no holes, so the count follows from the ends (an empty heartbeat: last = first - 1).
    CONSTRAINT batch_sequence_is_dense CHECK (first >= 1 AND events >= 0 AND last - first + 1 = events),
    CONSTRAINT batch_bytes CHECK (bytes >= 0)
);
COMMENT ON TABLE batch IS 'Every accepted batch with its control totals: the list of the archive.';
-- One successor a seal: a second one is a fork too (a restored disk, a cloned machine), unless a person adopted it.
CREATE UNIQUE INDEX batch_successor ON batch (operator, node, lane, previous) WHERE NOT adopted;

CREATE TABLE seal_fact (
    operator text NOT NULL,
    node text NOT NULL,
    lane text NOT NULL,
    epoch text NOT NULL,
    number bigint NOT NULL,
    rank integer NOT NULL,          -- its place among the facts of its seal, from 0
    kind text NOT NULL,
    begins timestamptz NOT NULL,    -- of a span or an unmetered interval; else the instant that the seal speaks of
    ends timestamptz NOT NULL,
    content jsonb NOT NULL,         -- the fact's values (metering/fact.py), instants in µs
    PRIMARY KEY (operator, node, lane, epoch, number, rank),
    FOREIGN KEY (operator, node, lane, epoch, number) REFERENCES batch,
    CONSTRAINT seal_fact_kind CHECK (kind IN ('unmetered', 'serves', 'span')),
    CONSTRAINT seal_fact_ends_after_it_begins CHECK (ends >= begins),
    CONSTRAINT seal_fact_rank CHECK (rank >= 0),
    CONSTRAINT seal_fact_content_is_an_object CHECK (jsonb_typeof(content) = 'object')
);
COMMENT ON TABLE seal_fact IS 'What accepted seals say beside their events, one row a fact; of siblings see sibling.';
-- Asked for a node's newest of a kind, and for those that touch a period.
CREATE INDEX seal_fact_ends ON seal_fact (operator, kind, node, ends);

-- A lane that is told of is there, whether anybody enrolled it or not; a row for each, however often it is told of.
CREATE TABLE sibling (
    operator text NOT NULL REFERENCES operator,
    node text NOT NULL,
    lane text NOT NULL,             -- the one that is told of
    epoch text NOT NULL,            -- its newest seal, as it was told last
    number bigint NOT NULL,
    hash text NOT NULL,
    first_told timestamptz NOT NULL,
    told timestamptz NOT NULL,
    PRIMARY KEY (operator, node, lane),
    CONSTRAINT sibling_number CHECK (number >= 0),
    CONSTRAINT sibling_told_after_it_was_first_told CHECK (told >= first_told)
);
COMMENT ON TABLE sibling IS 'The lanes of each node of which other lanes of it told in their seals, and their newest seal.';

CREATE TABLE seal_sum (
    operator text NOT NULL,
    node text NOT NULL,
    lane text NOT NULL,
    epoch text NOT NULL,
    number bigint NOT NULL,
    model text NOT NULL,
    first_time timestamptz NOT NULL,
    last_time timestamptz NOT NULL,
    requests bigint NOT NULL,
    prompt_tokens bigint NOT NULL,
    generated_tokens bigint NOT NULL,
    unwitnessed_requests bigint NOT NULL,
    PRIMARY KEY (operator, node, lane, epoch, number, model),
    FOREIGN KEY (operator, node, lane, epoch, number) REFERENCES batch,
    CONSTRAINT seal_sum_times CHECK (last_time >= first_time)
);
COMMENT ON TABLE seal_sum IS
    'Sums by model of each accepted batch of a sidecar: what reconciliation compares with the engine''s counters.';
CREATE INDEX seal_sum_time ON seal_sum (operator, node, last_time);

CREATE TABLE held (
    operator text NOT NULL,
    node text NOT NULL,
    lane text NOT NULL,
    epoch text NOT NULL,
    number bigint NOT NULL,
    hash text NOT NULL,
    previous text NOT NULL,         -- the seal that it follows: what is held behind a hole goes on when that comes
    code text NOT NULL,
    what text NOT NULL,
    path text NOT NULL,
    held_at timestamptz NOT NULL,
    due_at timestamptz,             -- of what is ahead of time: when it no longer is
    missing uuid[],                 -- of what names unknown customers: which
    key_rank integer NOT NULL DEFAULT 0,    -- of the key that signed it (lane_key)
    -- The hash is part of the key: both branches of a fork may be held, nothing is dropped.
    PRIMARY KEY (operator, node, lane, epoch, number, hash),
    FOREIGN KEY (operator, node, lane) REFERENCES lane,
    CONSTRAINT held_code CHECK (code ~ '^[a-z_]+$')
);
COMMENT ON TABLE held IS 'Batches that verified under an enrolled key and can''t be accepted, with the reason.';

CREATE TABLE set_aside (
    operator text NOT NULL REFERENCES operator,     -- as claimed, where there is one of that id; else '*'
    digest text NOT NULL,           -- SHA-256 of the bytes as they came
    claimed text NOT NULL,          -- the operator as claimed, whether there is one of that id or not
    node text NOT NULL,             -- as claimed, unproved; '' where nothing readable claims anything
    lane text NOT NULL,
    code text NOT NULL,
    what text NOT NULL,
    key_hash text NOT NULL,         -- of the key that it says to be signed by; '' where nothing readable says so
    path text NOT NULL,
    seen_at timestamptz NOT NULL,
    batches bigint NOT NULL DEFAULT 1,      -- more than 1 only of `not_kept`: so many came beyond what is kept
    PRIMARY KEY (operator, digest),
    CONSTRAINT set_aside_code CHECK (code ~ '^[a-z_]+$')
);
COMMENT ON TABLE set_aside IS 'What verified under no enrolled key. It is nobody''s, and stops nobody''s close.';

CREATE TABLE import_file (
    operator text NOT NULL REFERENCES operator,
    id text NOT NULL,               -- also the name of its lane; the same content again, after a void, is another import
    epoch text NOT NULL,            -- first 128 bits of SHA-256 over the decoded rows
    node text NOT NULL,
    lane text NOT NULL,
    file_sha256 text NOT NULL,
    options_sha256 text NOT NULL,
    events bigint NOT NULL,
    first timestamptz,
    last timestamptz,
    totals jsonb NOT NULL,
    state text NOT NULL,            -- running before its first seal is made, voiding before its first event is taken back
    imported_at timestamptz NOT NULL, -- when it began
    voided_at timestamptz,          -- when taking back began
    void_reason text,
    PRIMARY KEY (operator, id),
    CONSTRAINT import_file_state CHECK (state IN ('running', 'accepted', 'voiding', 'voided')),
    CONSTRAINT import_file_epoch CHECK (epoch ~ '^[0-9a-f]{32}$'),
    CONSTRAINT import_file_events CHECK (events >= 0),
    -- Who takes usage back says why.
    CONSTRAINT import_file_void_has_a_reason CHECK
        (num_nonnulls(voided_at, void_reason) = CASE WHEN state IN ('voiding', 'voided') THEN 2 ELSE 0 END)
);
COMMENT ON TABLE import_file IS 'Files that were imported, that are being imported, and those taken back.';
-- The same content stands once on a node, whoever asks at the same moment.
CREATE UNIQUE INDEX import_file_stands_once ON import_file (operator, node, epoch) WHERE state <> 'voided';

-- Usage ----------------------------------------------------------------------------------------------------------------
-- Partitioned by operator and UTC month; partitions come from ensure_usage_partitions (0001_first.usage.sql).
-- No foreign keys: a check per row would cost COPY more than the row, and a partition exists only for a registered
-- operator. No unique cell: intake appends, a cell is the sum of its rows (a sum over parts never depends on them).
-- Quantities may be negative here: amendments are differences, voids take back.

-- A row holds up to some dozen cells of one hour, node, model, outcome and band, an array a column and an element a cell:
-- a row's way into the table costs PostgreSQL the same whatever it holds. Null stands for what most cells have: no project,
-- no key, one request, none of a quantity, the generated tokens that the completion has. Where only some cells have no
-- project or key, their elements are null.
CREATE TABLE partial_sum (
    operator text NOT NULL,
    hour timestamptz NOT NULL,
    node text NOT NULL,
    model text NOT NULL,
    outcome text NOT NULL,
    band integer NOT NULL,          -- prompts larger than this many tokens
    late boolean NOT NULL,          -- accepted after the period's late_bound
    customer uuid[] NOT NULL,
    project uuid[],
    key uuid[],
    requests bigint[],              -- null: 1 each
    prompt_tokens bigint[],         -- null: 0 each, as all that say nothing else
    cached_tokens bigint[],
    completion_tokens bigint[],
    reasoning_tokens bigint[],
    generated_tokens bigint[],      -- null: as completion_tokens
    generated_reasoning_tokens bigint[],  -- null: as reasoning_tokens
    audio_seconds bigint[],
    unwitnessed_requests bigint[],
    CONSTRAINT partial_sum_hour_is_whole CHECK (date_bin('1 hour', hour, '2000-01-01 00:00+00') = hour),
    CONSTRAINT partial_sum_outcome CHECK (outcome IN ('finished', 'aborted', 'failed', 'interrupted')),
    CONSTRAINT partial_sum_band CHECK (band IN (0, 32000, 128000, 200000, 256000, 512000, 1000000)),
    -- Unnested beside each other, a shorter array would be filled up with what stands for most cells.
    CONSTRAINT partial_sum_as_many_of_each CHECK (
        cardinality(customer) > 0 AND array_position(customer, NULL) IS NULL
        AND cardinality(project) = cardinality(customer) AND cardinality(key) = cardinality(customer)
        AND cardinality(requests) = cardinality(customer) AND cardinality(prompt_tokens) = cardinality(customer)
        AND cardinality(cached_tokens) = cardinality(customer) AND cardinality(completion_tokens) = cardinality(customer)
        AND cardinality(reasoning_tokens) = cardinality(customer) AND cardinality(generated_tokens) = cardinality(customer)
        AND cardinality(generated_reasoning_tokens) = cardinality(customer)
        AND cardinality(audio_seconds) = cardinality(customer)
        AND cardinality(unwitnessed_requests) = cardinality(customer))
) PARTITION BY LIST (operator);
COMMENT ON TABLE partial_sum IS 'Sums of accepted batches, as intake copied them; rolled up when their hour is whole.';

-- The hours that have partial sums, a row for each transaction that wrote some: roll-up takes it away with them, and by
-- the same snapshot. An index of partial_sum by hour would say the same and cost COPY as much as all else of a row; this
-- table's own has few rows.
CREATE TABLE partial_hour (
    operator text NOT NULL,
    hour timestamptz NOT NULL
);
COMMENT ON TABLE partial_hour IS 'Hours that wait to be rolled up; one that is marked again by a late batch waits again.';
CREATE INDEX partial_hour_hour ON partial_hour (operator, hour);

CREATE TABLE hourly_usage (
    operator text NOT NULL,
    hour timestamptz NOT NULL,
    customer uuid NOT NULL,
    project uuid,
    key uuid,
    node text NOT NULL,
    model text NOT NULL,
    outcome text NOT NULL,
    band integer NOT NULL,
    late boolean NOT NULL,
    requests bigint NOT NULL,
    prompt_tokens bigint NOT NULL,
    cached_tokens bigint NOT NULL,
    completion_tokens bigint NOT NULL,
    reasoning_tokens bigint NOT NULL,
    generated_tokens bigint NOT NULL,
    generated_reasoning_tokens bigint NOT NULL,
    audio_seconds bigint NOT NULL,
    unwitnessed_requests bigint NOT NULL,
    CONSTRAINT hourly_usage_hour_is_whole CHECK (date_bin('1 hour', hour, '2000-01-01 00:00+00') = hour),
    CONSTRAINT hourly_usage_outcome CHECK (outcome IN ('finished', 'aborted', 'failed', 'interrupted')),
    CONSTRAINT hourly_usage_band CHECK (band IN (0, 32000, 128000, 200000, 256000, 512000, 1000000))
) PARTITION BY LIST (operator);
COMMENT ON TABLE hourly_usage IS 'Cells of whole hours; a function of the set of accepted batches.';

-- Partial sums leave by the hour, most of what there is at a time. Hourly usage is read in ranges of a month that is one
-- partition anyway: BRIN skips what lies outside, is next to free to keep, and reads the table in its own order (a
-- B-tree's order of hours is random access to it: 1M cells 4.8 s instead of 0.3).
CREATE INDEX partial_sum_hour ON partial_sum USING brin (hour) WITH (autosummarize = on);
CREATE INDEX hourly_usage_hour ON hourly_usage USING brin (hour) WITH (autosummarize = on);
-- One customer's month, asked for by people who wait: of 2.7 M cells a month some hundred are theirs.
CREATE INDEX hourly_usage_customer ON hourly_usage (customer, hour);

-- Arrays that are unnested beside each other in one list go element by element; a null one gives nulls.
CREATE VIEW usage_cell WITH (security_invoker = true) AS
    SELECT operator, hour, customer, project, key, node, model, outcome, band, late,
        coalesce(requests, 1) AS requests, coalesce(prompt_tokens, 0) AS prompt_tokens,
        coalesce(cached_tokens, 0) AS cached_tokens, coalesce(completion_tokens, 0) AS completion_tokens,
        coalesce(reasoning_tokens, 0) AS reasoning_tokens,
        coalesce(generated_tokens, completion_tokens, 0) AS generated_tokens,
        coalesce(generated_reasoning_tokens, reasoning_tokens, 0) AS generated_reasoning_tokens,
        coalesce(audio_seconds, 0) AS audio_seconds, coalesce(unwitnessed_requests, 0) AS unwitnessed_requests
    FROM (
        SELECT operator, hour, node, model, outcome, band, late,
            unnest(customer) AS customer, unnest(project) AS project, unnest(key) AS key,
            unnest(requests) AS requests, unnest(prompt_tokens) AS prompt_tokens,
            unnest(cached_tokens) AS cached_tokens, unnest(completion_tokens) AS completion_tokens,
            unnest(reasoning_tokens) AS reasoning_tokens, unnest(generated_tokens) AS generated_tokens,
            unnest(generated_reasoning_tokens) AS generated_reasoning_tokens,
            unnest(audio_seconds) AS audio_seconds, unnest(unwitnessed_requests) AS unwitnessed_requests
        FROM partial_sum) AS part
    UNION ALL SELECT * FROM hourly_usage;
COMMENT ON VIEW usage_cell IS 'All usage, rolled up or not. One statement over it sees every accepted batch once.';

CREATE TABLE late_bound (
    operator text NOT NULL REFERENCES operator,
    period text NOT NULL,
    late_after timestamptz NOT NULL,
    PRIMARY KEY (operator, period),
    CONSTRAINT late_bound_period CHECK (period ~ '^[0-9]{4}-(0[1-9]|1[0-2])$')
);
COMMENT ON TABLE late_bound IS
    'From a period''s first issued close plus late_days on, what intake accepts for it is reported, not billed.';

-- Money ----------------------------------------------------------------------------------------------------------------

CREATE TABLE document (
    operator text NOT NULL REFERENCES operator,
    id text NOT NULL,
    kind text NOT NULL,
    state text NOT NULL,
    number text,
    customer text,
    party text,
    period text NOT NULL,
    currency text NOT NULL,
    line_total bigint,
    net bigint NOT NULL,
    tax bigint NOT NULL,
    gross bigint NOT NULL,
    sign smallint NOT NULL,
    issue_date date,
    content jsonb NOT NULL,         -- docs/commands.md: D, lines included
    created_at timestamptz NOT NULL,
    issued_at timestamptz,
    PRIMARY KEY (operator, id),
    -- Two documents under one number could not be told apart by the one who books them.
    CONSTRAINT document_number UNIQUE (operator, number),
    CONSTRAINT document_kind CHECK (kind IN
        ('invoice', 'credit_note', 'self_billed_invoice', 'self_billed_credit_note', 'prepayment_invoice')),
    CONSTRAINT document_state CHECK (state IN ('draft', 'issued')),
    CONSTRAINT document_issued_has_number_and_date CHECK
        (num_nonnulls(number, issue_date, issued_at) = CASE state WHEN 'issued' THEN 3 ELSE 0 END),
    CONSTRAINT document_has_one_buyer_or_party CHECK (num_nonnulls(customer, party) = 1),
    CONSTRAINT document_period CHECK (period ~ '^[0-9]{4}-(0[1-9]|1[0-2])$'),
    CONSTRAINT document_currency CHECK (currency ~ '^[A-Z]{3}$'),
    -- Amounts are magnitudes, the sign says which way: a credit note's are turned, so never both.
    CONSTRAINT document_sign CHECK
        (sign = CASE WHEN kind IN ('credit_note', 'self_billed_credit_note') THEN -1 ELSE 1 END),
    CONSTRAINT document_amounts CHECK (net >= 0 AND gross >= 0 AND gross = net + tax)
);
COMMENT ON TABLE document IS 'Invoices and credit notes. Drafts come and go; what is issued never changes.';
CREATE INDEX document_period ON document (operator, period, customer);

CREATE TABLE number_series (
    operator text NOT NULL REFERENCES operator,
    entity text NOT NULL,           -- the legal entity whose series it is: the operator or a party
    kind text NOT NULL,
    year integer NOT NULL,          -- 0 where the pattern has no {yyyy}
    next bigint NOT NULL,
    PRIMARY KEY (operator, entity, kind, year),
    CONSTRAINT number_series_next CHECK (next >= 0),
    CONSTRAINT number_series_year CHECK (year = 0 OR year BETWEEN 2020 AND 9999)
);
COMMENT ON TABLE number_series IS
    'The next number of each series. A row, not a sequence: it rolls back with the document, so no gap opens.';

CREATE TABLE adjustment (
    operator text NOT NULL REFERENCES operator,
    id text NOT NULL,
    customer text NOT NULL,
    period text NOT NULL,
    net bigint NOT NULL,
    reason text NOT NULL,
    who text NOT NULL,
    document text,                  -- the document that it was made about
    made_at timestamptz NOT NULL,
    PRIMARY KEY (operator, id),
    FOREIGN KEY (operator, document) REFERENCES document (operator, id),
    CONSTRAINT adjustment_period CHECK (period ~ '^[0-9]{4}-(0[1-9]|1[0-2])$'),
    CONSTRAINT adjustment_moves_money CHECK (net <> 0),
    CONSTRAINT adjustment_says_why_and_who CHECK (reason <> '' AND who <> '')
);
COMMENT ON TABLE adjustment IS 'What people added to or took off a bill, with the reason.';
CREATE INDEX adjustment_period ON adjustment (operator, period, customer);

CREATE TABLE settlement (
    operator text NOT NULL REFERENCES operator,
    id text NOT NULL,
    period text NOT NULL,
    number integer NOT NULL,        -- 1, 2 … within the period
    content jsonb NOT NULL,
    made_at timestamptz NOT NULL,
    PRIMARY KEY (operator, id),
    CONSTRAINT settlement_number UNIQUE (operator, period, number),
    CONSTRAINT settlement_number_counts CHECK (number >= 1),
    CONSTRAINT settlement_period CHECK (period ~ '^[0-9]{4}-(0[1-9]|1[0-2])$')
);
COMMENT ON TABLE settlement IS 'Revenue shares of a period, each run the difference to the runs before.';

CREATE TABLE journal_entry (
    operator text NOT NULL REFERENCES operator,
    id bigint GENERATED ALWAYS AS IDENTITY,
    posted_at timestamptz NOT NULL,
    period text NOT NULL,
    kind text NOT NULL,
    document text,
    settlement text,
    reverses bigint,
    postings integer NOT NULL,      -- how many it has; a posting added afterwards would show
    PRIMARY KEY (operator, id),
    FOREIGN KEY (operator, document) REFERENCES document (operator, id),
    FOREIGN KEY (operator, settlement) REFERENCES settlement (operator, id),
    FOREIGN KEY (operator, reverses) REFERENCES journal_entry (operator, id),
    -- A document, a settlement is posted once; an entry is reversed once.
    CONSTRAINT journal_entry_document UNIQUE (operator, document, kind),
    CONSTRAINT journal_entry_settlement UNIQUE (operator, settlement, kind),
    CONSTRAINT journal_entry_reverses UNIQUE (operator, reverses),
    CONSTRAINT journal_entry_kind CHECK (kind ~ '^[a-z_]+$'),
    CONSTRAINT journal_entry_period CHECK (period ~ '^[0-9]{4}-(0[1-9]|1[0-2])$'),
    CONSTRAINT journal_entry_is_double CHECK (postings >= 2)
);
COMMENT ON TABLE journal_entry IS 'The journal; entries balance per currency and are never updated or deleted.';

CREATE TABLE posting (
    operator text NOT NULL,
    entry bigint NOT NULL,
    number integer NOT NULL,        -- 1, 2 … within the entry
    account text NOT NULL,
    subject text,                   -- the customer or party whose account it is
    currency text NOT NULL,
    amount bigint NOT NULL,         -- debit +, credit -
    PRIMARY KEY (operator, entry, number),
    FOREIGN KEY (operator, entry) REFERENCES journal_entry (operator, id),
    CONSTRAINT posting_number CHECK (number >= 1),
    CONSTRAINT posting_account CHECK (account ~ '^[a-z_]+$'),
    CONSTRAINT posting_currency CHECK (currency ~ '^[A-Z]{3}$'),
    CONSTRAINT posting_moves_money CHECK (amount <> 0)
);
COMMENT ON TABLE posting IS 'Debits and credits of journal entries.';

CREATE TABLE period_close (
    operator text NOT NULL REFERENCES operator,
    period text NOT NULL,
    number integer NOT NULL,        -- 1, 2 … within the period
    closed_at timestamptz NOT NULL,
    heads jsonb NOT NULL,           -- the lanes' high-water marks that it read
    facts jsonb NOT NULL,           -- the versions that priced it
    result jsonb NOT NULL,          -- what the command printed
    unfinished boolean NOT NULL,    -- closed before the period was over
    checkpoint text,                -- the newest signed one of the log: what it was computed from is in there
    PRIMARY KEY (operator, period, number),
    CONSTRAINT period_close_number CHECK (number >= 1),
    CONSTRAINT period_close_period CHECK (period ~ '^[0-9]{4}-(0[1-9]|1[0-2])$')
);
COMMENT ON TABLE period_close IS 'Each close of a period, with what it saw.';
