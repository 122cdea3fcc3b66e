-- The log: what the database adds to it in the same transaction as the change itself, so that no code path can forget.
-- A leaf is what one change of one row comes to; billing/log.py says how its bytes are written. Leaves are added in any
-- order; one sequencer numbers those that are committed, archives them and signs (adapters/log_sequencer.py).

CREATE TABLE leaf (
    operator text NOT NULL,         -- no foreign key: the row that made the leaf has one
    id bigint GENERATED ALWAYS AS IDENTITY,
    kind text NOT NULL,             -- the table whose change it is
    data bytea NOT NULL,            -- what the log holds
    nonce bytea,                    -- of a change: 32 random bytes, so that its content can't be guessed from the log
    content text,                   -- of a change: JSON, the very bytes that were hashed
    made_at timestamptz NOT NULL,
    PRIMARY KEY (operator, id),
    -- A batch's leaf says everything itself. Another commits to a content, which may be erased, with its nonce.
    CONSTRAINT leaf_content_has_its_nonce CHECK ((content IS NULL) = (nonce IS NULL)),
    CONSTRAINT leaf_of_a_batch_has_no_content CHECK (kind <> 'batch' OR content IS NULL),
    CONSTRAINT leaf_nonce_is_256_bits CHECK (octet_length(nonce) = 32),
    -- Nobody can put another content beside the commitment.
    CONSTRAINT leaf_commits_to_its_content CHECK (content IS NULL OR data = convert_to('tallygrid/leaf/v1' || E'\nchange '
        || kind || ' ' || encode(sha256(nonce || convert_to(content, 'UTF8')), 'hex') || E'\n', 'UTF8'))
);
COMMENT ON TABLE leaf IS 'Leaves of the operators'' logs; only a content may be erased, when the law asks for it.';
-- Leaves lie in the order of their making, so that this next-to-free index finds those of an hour.
CREATE INDEX leaf_made_at ON leaf USING brin (made_at) WITH (autosummarize = on);

-- A queue, and not a high-water mark: of two transactions the one with the higher ids may commit first.
CREATE TABLE leaf_waiting (
    operator text NOT NULL,
    leaf bigint NOT NULL,
    transaction bigint NOT NULL,    -- the one that made it, to find its own leaves by before it commits
    PRIMARY KEY (operator, leaf)
);
COMMENT ON TABLE leaf_waiting IS 'Leaves that have no number yet.';

CREATE TABLE log_entry (
    operator text NOT NULL,
    index bigint NOT NULL,          -- 0, 1, 2 …
    leaf bigint NOT NULL,           -- no foreign key: it would lock, and so write, each leaf; log_head's check counts
    PRIMARY KEY (operator, index),
    CONSTRAINT log_entry_once UNIQUE (operator, leaf),
    CONSTRAINT log_entry_index CHECK (index >= 0)
);
COMMENT ON TABLE log_entry IS 'Which leaf stands at which place of the log.';

CREATE TABLE log_head (
    operator text NOT NULL REFERENCES operator,
    size bigint NOT NULL,           -- leaves that the newest checkpoint covers
    root bytea NOT NULL,            -- RFC 6962 tree hash over them
    checkpoint text NOT NULL,       -- the signed note
    signed_at timestamptz NOT NULL,
    PRIMARY KEY (operator),
    CONSTRAINT log_head_size CHECK (size > 0),
    CONSTRAINT log_head_root_is_sha256 CHECK (octet_length(root) = 32)
);
COMMENT ON TABLE log_head IS 'The newest checkpoint of each log that is archived and signed.';

-- What makes leaves runs with the owner's rights: nobody else has one to add a leaf that no change made.

-- Every leaf waits from the moment it is made.
CREATE FUNCTION await_number() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    INSERT INTO leaf_waiting (operator, leaf, transaction)
        SELECT operator, id, pg_current_xact_id()::text::bigint FROM added;
    RETURN NULL;
END
$$;
CREATE TRIGGER waits AFTER INSERT ON leaf
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION await_number();

-- … and stops waiting only by being numbered.
CREATE FUNCTION check_numbered() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM gone WHERE NOT EXISTS (
            SELECT FROM log_entry e WHERE (e.operator, e.leaf) = (gone.operator, gone.leaf))) THEN
        RAISE EXCEPTION 'a leaf stops waiting only when it is numbered' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER numbered AFTER DELETE ON leaf_waiting
    REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION check_numbered();

CREATE FUNCTION refuse_change_of_leaf() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'of leaf % only the content can be erased', OLD.id USING ERRCODE = 'restrict_violation';
END
$$;
CREATE TRIGGER only_erased BEFORE UPDATE ON leaf
    FOR EACH ROW WHEN (num_nonnulls(NEW.nonce, NEW.content) > 0
        OR (NEW.operator, NEW.id, NEW.kind, NEW.data, NEW.made_at)
            IS DISTINCT FROM (OLD.operator, OLD.id, OLD.kind, OLD.data, OLD.made_at))
    EXECUTE FUNCTION refuse_change_of_leaf();
CREATE TRIGGER append_only BEFORE DELETE OR TRUNCATE ON leaf EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON log_entry EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR TRUNCATE ON leaf_waiting EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE DELETE OR TRUNCATE ON log_head EXECUTE FUNCTION refuse_change();

-- A signed tree only grows, and every place in it holds a leaf.
CREATE FUNCTION check_log_grows() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    known bigint := CASE TG_OP WHEN 'INSERT' THEN 0 ELSE OLD.size END;
    found bigint := (SELECT count(*) FROM log_entry e JOIN leaf l ON (l.operator, l.id) = (e.operator, e.leaf)
                     WHERE e.operator = NEW.operator AND e.index >= known AND e.index < NEW.size);
BEGIN
    IF NEW.size < known OR (NEW.size = known AND NEW.root <> OLD.root) OR found <> NEW.size - known THEN
        RAISE EXCEPTION 'a log of % leaves can''t become one of %, of which % are there', known, NEW.size, found
            USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER only_grows AFTER INSERT OR UPDATE ON log_head FOR EACH ROW EXECUTE FUNCTION check_log_grows();

-- Accepted batches: their leaf names the seal's hash, and needs no content. It says when the batch was accepted, because
-- that decides whether its usage came too late to be billed, and stands nowhere else. A heartbeat is under the next leaf
-- of its lane, whose seal leads back to it; so most have none, and a quiet lane makes one an hour. One that a person
-- adopted has one: no seal of its own chain leads to what the lane held before.
CREATE FUNCTION add_batch_leaves() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    INSERT INTO leaf (operator, kind, data, made_at)
        SELECT operator, 'batch', convert_to('tallygrid/leaf/v1' || E'\nbatch ' || node || ' ' || lane || ' ' || epoch
            || ' ' || number || ' ' || hash || ' ' || to_char(accepted_at AT TIME ZONE 'UTC',
            'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') || E'\n', 'UTF8'), now()
        FROM added a
        WHERE events > 0 OR number = 0 OR final OR adopted
            OR date_trunc('hour', complete_to, 'UTC') IS DISTINCT FROM (
                SELECT date_trunc('hour', b.complete_to, 'UTC') FROM batch b
                WHERE (b.operator, b.node, b.lane, b.epoch, b.number)
                    = (a.operator, a.node, a.lane, a.epoch, a.number - 1))
        ORDER BY node, lane, epoch, number;
    RETURN NULL;
END
$$;
CREATE TRIGGER log_leaf AFTER INSERT ON batch
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION add_batch_leaves();

-- Everything else: the row as JSON text. row_to_json and not to_jsonb, which would sort the keys of site documents.
-- Arguments name the only columns that are told, where not all are.
CREATE FUNCTION add_change_leaf() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    changed record := CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
    told text := CASE TG_NARGS WHEN 0 THEN row_to_json(changed)::text
        ELSE (SELECT json_object_agg(key, value)::text FROM json_each(row_to_json(changed)) WHERE key = ANY (TG_ARGV)) END;
    -- 244 of these 256 bits are random; gen_random_uuid is the only strong source that needs no extension.
    nonce bytea := uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid());
    content text := '{"table":"' || TG_TABLE_NAME || '","op":"' || lower(TG_OP) || '","at":' || to_json(now()) || ',"row":'
        || told || '}';
BEGIN
    INSERT INTO leaf (operator, kind, data, nonce, content, made_at) VALUES (
        changed.operator, TG_TABLE_NAME, convert_to('tallygrid/leaf/v1' || E'\nchange ' || TG_TABLE_NAME || ' '
            || encode(sha256(nonce || convert_to(content, 'UTF8')), 'hex') || E'\n', 'UTF8'), nonce, content, now());
    RETURN NULL;
END
$$;
CREATE TRIGGER log_leaf AFTER INSERT OR UPDATE OR DELETE ON site_document
    FOR EACH ROW EXECUTE FUNCTION add_change_leaf();
CREATE TRIGGER log_leaf AFTER INSERT ON superseded FOR EACH ROW EXECUTE FUNCTION add_change_leaf();
CREATE TRIGGER log_leaf AFTER INSERT OR UPDATE OR DELETE ON subject FOR EACH ROW EXECUTE FUNCTION add_change_leaf();
CREATE TRIGGER log_leaf AFTER INSERT OR UPDATE OR DELETE ON api_key FOR EACH ROW EXECUTE FUNCTION add_change_leaf();
-- A lane's enrolment; its mark moves with every batch, and follows from those.
CREATE TRIGGER log_leaf AFTER INSERT OR UPDATE OF kind, enrolled_at ON lane
    FOR EACH ROW EXECUTE FUNCTION add_change_leaf('operator', 'node', 'lane', 'kind', 'enrolled_at');
CREATE TRIGGER log_leaf AFTER INSERT ON node_key FOR EACH ROW EXECUTE FUNCTION add_change_leaf();
CREATE TRIGGER log_leaf AFTER INSERT OR UPDATE ON lane_key FOR EACH ROW EXECUTE FUNCTION add_change_leaf();
CREATE TRIGGER log_leaf AFTER INSERT ON decision FOR EACH ROW EXECUTE FUNCTION add_change_leaf();
CREATE TRIGGER log_leaf AFTER INSERT OR UPDATE OR DELETE ON import_file FOR EACH ROW EXECUTE FUNCTION add_change_leaf();
CREATE TRIGGER log_leaf AFTER INSERT OR UPDATE ON late_bound FOR EACH ROW EXECUTE FUNCTION add_change_leaf();
-- Drafts come and go: what is issued counts.
CREATE TRIGGER log_leaf AFTER INSERT OR UPDATE ON document
    FOR EACH ROW WHEN (NEW.state = 'issued') EXECUTE FUNCTION add_change_leaf();
CREATE TRIGGER log_leaf AFTER INSERT OR UPDATE ON number_series FOR EACH ROW EXECUTE FUNCTION add_change_leaf();
CREATE TRIGGER log_leaf AFTER INSERT ON adjustment FOR EACH ROW EXECUTE FUNCTION add_change_leaf();
CREATE TRIGGER log_leaf AFTER INSERT ON settlement FOR EACH ROW EXECUTE FUNCTION add_change_leaf();
CREATE TRIGGER log_leaf AFTER INSERT ON journal_entry FOR EACH ROW EXECUTE FUNCTION add_change_leaf();
CREATE TRIGGER log_leaf AFTER INSERT ON posting FOR EACH ROW EXECUTE FUNCTION add_change_leaf();
CREATE TRIGGER log_leaf AFTER INSERT ON period_close FOR EACH ROW EXECUTE FUNCTION add_change_leaf();
