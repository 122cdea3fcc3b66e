-- Keys of nodes and lanes, and what people decided about lanes. Nothing here is ever deleted: a key that was revoked
-- still vouches for what it signed before, and a decision says for good why a lane's chain is as it is.

CREATE TABLE node_key (
    operator text NOT NULL REFERENCES operator,
    node text NOT NULL,
    rank integer NOT NULL,          -- 0, 1 …; the newest is the one that may ask for lanes
    public_key bytea NOT NULL,      -- Ed25519, raw
    enrolled_at timestamptz NOT NULL,
    PRIMARY KEY (operator, node, rank),
    CONSTRAINT node_key_once UNIQUE (operator, node, public_key),
    CONSTRAINT node_key_is_ed25519 CHECK (octet_length(public_key) = 32),
    CONSTRAINT node_key_rank CHECK (rank >= 0)
);
COMMENT ON TABLE node_key IS 'Keys with which nodes sign their enrolment requests.';

CREATE TABLE lane_key (
    operator text NOT NULL,
    node text NOT NULL,
    lane text NOT NULL,
    rank integer NOT NULL,          -- 0, 1 …: the order in which the lane's keys came
    public_key bytea NOT NULL,      -- Ed25519, raw
    key_hash text NOT NULL,         -- by which a seal's signature names its key (C2SP signed note)
    made_at timestamptz NOT NULL,   -- by the node's clock, when it asked for the key: of two requests the newer one counts
    enrolled_at timestamptz NOT NULL,
    revoked_at timestamptz,
    -- The lane's last good seal when the key was revoked; 'genesis' where none was good. Of what the key signed later
    -- nothing is accepted.
    last_good_epoch text,
    last_good_number bigint,
    last_good_hash text,
    PRIMARY KEY (operator, node, lane, rank),
    FOREIGN KEY (operator, node, lane) REFERENCES lane,
    CONSTRAINT lane_key_once UNIQUE (operator, node, lane, public_key),
    CONSTRAINT lane_key_is_ed25519 CHECK (octet_length(public_key) = 32),
    CONSTRAINT lane_key_hash CHECK (key_hash ~ '^[0-9a-f]{8}$'),
    CONSTRAINT lane_key_rank CHECK (rank >= 0),
    CONSTRAINT lane_key_revocation_names_the_last_good_seal CHECK (
        (revoked_at IS NULL) = (last_good_hash IS NULL)
        AND num_nonnulls(last_good_epoch, last_good_number)
            = CASE WHEN coalesce(last_good_hash, 'genesis') = 'genesis' THEN 0 ELSE 2 END)
);
COMMENT ON TABLE lane_key IS 'The keys of each lane, in their order; revoked ones name the last good seal.';

CREATE TABLE decision (
    operator text NOT NULL,
    id uuid NOT NULL,
    kind text NOT NULL,
    node text NOT NULL,
    lane text NOT NULL,
    epoch text,                     -- the batch that it is about; of a lane that sealed nothing, none
    number bigint,
    hash text,
    after text,                     -- keep, accept_hole: the lane's last accepted seal, behind which the batch follows
    begins timestamptz,             -- what is not billed because of it: from when to when, how many requests
    ends timestamptz,
    requests bigint,                -- null: nobody knows
    reason text NOT NULL,
    decided_at timestamptz NOT NULL,
    PRIMARY KEY (operator, id),
    -- This key's check waits for a transaction that has the lane locked, and makes the next one wait: whoever decides
    -- sees what was accepted, and what comes later sees the decision.
    FOREIGN KEY (operator, node, lane) REFERENCES lane,
    CONSTRAINT decision_kind CHECK (kind IN ('keep', 'drop', 'accept_hole', 'revoke', 'retire', 'unproven')),
    CONSTRAINT decision_names_a_whole_batch CHECK (num_nonnulls(epoch, number, hash) IN (0, 3)),
    CONSTRAINT decision_about_a_batch_names_it CHECK (kind IN ('revoke', 'retire') OR hash IS NOT NULL),
    CONSTRAINT decision_says_where_the_lane_goes_on CHECK ((kind IN ('keep', 'accept_hole')) = (after IS NOT NULL)),
    CONSTRAINT decision_span CHECK (num_nonnulls(begins, ends) IN (0, 2) AND ends >= begins),
    CONSTRAINT decision_requests CHECK (requests >= 0),
    CONSTRAINT decision_says_why CHECK (reason <> '')
);
COMMENT ON TABLE decision IS 'What people decided about lanes and their batches, and why.';
CREATE INDEX decision_hash ON decision (operator, node, lane, hash);

-- Of a key only its revocation is added, once.
CREATE FUNCTION refuse_change_of_key() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'key % of lane % never changes, and is revoked once', OLD.rank, OLD.lane
        USING ERRCODE = 'restrict_violation';
END
$$;
CREATE TRIGGER only_revoked BEFORE UPDATE ON lane_key
    FOR EACH ROW WHEN (OLD.revoked_at IS NOT NULL
        OR (NEW.operator, NEW.node, NEW.lane, NEW.rank, NEW.public_key, NEW.key_hash, NEW.made_at,
                NEW.enrolled_at)
            IS DISTINCT FROM (OLD.operator, OLD.node, OLD.lane, OLD.rank, OLD.public_key, OLD.key_hash, OLD.made_at,
                OLD.enrolled_at))
    EXECUTE FUNCTION refuse_change_of_key();
CREATE TRIGGER append_only BEFORE DELETE OR TRUNCATE ON lane_key EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON node_key EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON decision EXECUTE FUNCTION refuse_change();
