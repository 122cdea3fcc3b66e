-- What people decide about the archive: which evidence must stay, and which bodies may go.

CREATE TABLE legal_hold (
    operator text NOT NULL REFERENCES operator,
    id uuid NOT NULL,
    customer uuid,                  -- a subject's id; null: of every customer
    period text,                    -- a month; null: of all time
    reason text NOT NULL,
    added_at timestamptz NOT NULL,
    removed_at timestamptz,
    removed_reason text,
    PRIMARY KEY (operator, id),
    CONSTRAINT legal_hold_period CHECK (period ~ '^[0-9]{4}-(0[1-9]|1[0-2])$'),
    CONSTRAINT legal_hold_says_why CHECK (reason <> ''),
    CONSTRAINT legal_hold_is_removed_with_a_reason
        CHECK (num_nonnulls(removed_at, removed_reason) IN (0, 2) AND removed_reason <> '')
);
COMMENT ON TABLE legal_hold IS 'What must not expire from the archive, since when, until when, and why.';

CREATE TABLE expiry (
    operator text NOT NULL REFERENCES operator,
    id uuid NOT NULL,
    before date NOT NULL,           -- bodies of days (UTC) before it may go …
    batches bigint NOT NULL,        -- … of so many batches …
    listed text NOT NULL,           -- … which the object of this SHA-256 names in the archive, with what they came to
    reason text NOT NULL,
    decided_at timestamptz NOT NULL,
    PRIMARY KEY (operator, id),
    CONSTRAINT expiry_batches CHECK (batches > 0),
    CONSTRAINT expiry_listed CHECK (listed ~ '^[0-9a-f]{64}$'),
    CONSTRAINT expiry_says_why CHECK (reason <> '')
);
COMMENT ON TABLE expiry IS 'Decisions by which bodies left the archive; their seals and sums stay.';

-- Of a hold only its removal is added, once.
CREATE FUNCTION refuse_change_of_hold() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'legal hold % never changes, and is removed once', OLD.id USING ERRCODE = 'restrict_violation';
END
$$;
CREATE TRIGGER only_removed BEFORE UPDATE ON legal_hold
    FOR EACH ROW WHEN (OLD.removed_at IS NOT NULL
        OR (NEW.operator, NEW.id, NEW.customer, NEW.period, NEW.reason, NEW.added_at)
            IS DISTINCT FROM (OLD.operator, OLD.id, OLD.customer, OLD.period, OLD.reason, OLD.added_at))
    EXECUTE FUNCTION refuse_change_of_hold();
CREATE TRIGGER append_only BEFORE DELETE OR TRUNCATE ON legal_hold EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON expiry EXECUTE FUNCTION refuse_change();

CREATE TRIGGER log_leaf AFTER INSERT OR UPDATE ON legal_hold FOR EACH ROW EXECUTE FUNCTION add_change_leaf();
CREATE TRIGGER log_leaf AFTER INSERT ON expiry FOR EACH ROW EXECUTE FUNCTION add_change_leaf();
