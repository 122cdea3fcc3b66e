-- Invariants that no constraint can say. The functions run with the rights and the row-level security of who writes:
-- a transaction that changed its operator half-way sees none of its entry's postings, and is refused.

-- What happened, stays: corrections are new rows (a reversal, a credit note, another adjustment).
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is only ever added to', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END
$$;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON journal_entry EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON posting EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON adjustment EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON settlement EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON superseded EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON period_close EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON late_bound EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE DELETE OR TRUNCATE ON batch EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON seal_fact EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON seal_sum EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE TRUNCATE ON document EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE DELETE OR TRUNCATE ON number_series EXECUTE FUNCTION refuse_change();

-- An issued document never changes: the customer has it.
CREATE FUNCTION refuse_change_of_issued() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'document % is issued, and never changes', OLD.id USING ERRCODE = 'restrict_violation';
END
$$;
CREATE TRIGGER issued_stays BEFORE UPDATE OR DELETE ON document
    FOR EACH ROW WHEN (OLD.state = 'issued') EXECUTE FUNCTION refuse_change_of_issued();

-- A number series never steps back, or a number would be given twice.
CREATE FUNCTION refuse_step_back() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'number series %/% never steps back', OLD.entity, OLD.kind USING ERRCODE = 'restrict_violation';
END
$$;
CREATE TRIGGER only_forward BEFORE UPDATE ON number_series
    FOR EACH ROW WHEN (NEW.next < OLD.next
        OR (NEW.operator, NEW.entity, NEW.kind, NEW.year) IS DISTINCT FROM (OLD.operator, OLD.entity, OLD.kind, OLD.year))
    EXECUTE FUNCTION refuse_step_back();

-- Of an accepted batch only the second pass's verdict is added: its root held.
CREATE FUNCTION refuse_change_of_batch() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'batch % of epoch % is accepted, and never changes', OLD.number, OLD.epoch
        USING ERRCODE = 'restrict_violation';
END
$$;
CREATE TRIGGER accepted_stays BEFORE UPDATE ON batch
    FOR EACH ROW WHEN (NOT NEW.root_checked OR to_jsonb(NEW) - 'root_checked' <> to_jsonb(OLD) - 'root_checked')
    EXECUTE FUNCTION refuse_change_of_batch();

-- Debits equal credits in every currency, and the entry has the postings that it says. Deferred to the commit, because
-- an entry and its postings are several statements.
CREATE FUNCTION check_entry_balances() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    entry_id bigint := CASE TG_TABLE_NAME WHEN 'posting' THEN (to_jsonb(NEW) ->> 'entry')::bigint
                                          ELSE (to_jsonb(NEW) ->> 'id')::bigint END;
    unbalanced text;
BEGIN
    IF (SELECT e.postings FROM journal_entry e WHERE e.operator = NEW.operator AND e.id = entry_id)
       IS DISTINCT FROM
       (SELECT count(*) FROM posting p WHERE p.operator = NEW.operator AND p.entry = entry_id) THEN
        RAISE EXCEPTION 'journal entry % has not the postings that it says', entry_id
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    SELECT string_agg(currency || ' ' || amount, ', ' ORDER BY currency) INTO unbalanced FROM (
        SELECT p.currency, sum(p.amount) AS amount FROM posting p
        WHERE p.operator = NEW.operator AND p.entry = entry_id GROUP BY p.currency HAVING sum(p.amount) <> 0) u;
    IF unbalanced IS NOT NULL THEN
        RAISE EXCEPTION 'journal entry % is out of balance by %', entry_id, unbalanced
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NULL;
END
$$;
CREATE CONSTRAINT TRIGGER balanced AFTER INSERT ON journal_entry
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION check_entry_balances();
-- An entry's own trigger checks what came with it; this one, what somebody adds to it later.
CREATE CONSTRAINT TRIGGER balanced AFTER INSERT ON posting
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION check_entry_balances();
