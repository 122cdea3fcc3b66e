-- Who may do what. Three roles (adapters/postgres/roles.py makes them):
--   tally_owner   migrations only; owns every table;
--   tally_intake  takes usage in; passes row-level security (COPY FROM refuses to work under it), so it gets nothing
--                 of money, names or keys;
--   tally_app     everything else; owns nothing, has no right on partitions, and sees only the operator that the
--                 transaction names by set_config('tally.operator', …, true).
-- The setting guards against mistakes of ours; operators who share a database get a login each.

REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO tally_intake, tally_app;

-- Row-level security everywhere, forced: the owner's own functions are held by policies too.
DO $$
DECLARE
    name text;
BEGIN
    FOR name IN SELECT relname FROM pg_class
                WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', name);
        EXECUTE format('CREATE POLICY owner ON %I TO tally_owner USING (true) WITH CHECK (true)', name);
        -- An unset setting is NULL and a reset one is '': both name no operator, and see nothing. As a subquery it is
        -- asked once a statement, not once a row.
        IF name NOT IN ('operator', 'alembic_version') THEN
            EXECUTE format($policy$
                CREATE POLICY own_rows ON %I TO tally_app
                    USING (operator = (SELECT nullif(current_setting('tally.operator', true), '')))
                    WITH CHECK (operator = (SELECT nullif(current_setting('tally.operator', true), '')))
                $policy$, name);
        END IF;
    END LOOP;
END
$$;
-- The registry says which operators there are, before one can be named; only one's own may be added.
CREATE POLICY all_ids ON operator FOR SELECT TO tally_app USING (true);
CREATE POLICY own_row ON operator FOR INSERT TO tally_app
    WITH CHECK (operator = (SELECT nullif(current_setting('tally.operator', true), '')));
-- A command has to know the schema's version before it names an operator.
CREATE POLICY version ON alembic_version FOR SELECT TO tally_app, tally_intake USING (true);

-- Site: versions are followed by others, never taken away.
GRANT SELECT ON alembic_version TO tally_app, tally_intake;
GRANT SELECT, INSERT ON operator TO tally_app;
GRANT SELECT, INSERT, UPDATE ON site_document TO tally_app;
GRANT SELECT, INSERT ON superseded TO tally_app;
GRANT SELECT, INSERT, UPDATE (slug) ON subject TO tally_app;
GRANT SELECT, INSERT, UPDATE (revoked_at) ON api_key TO tally_app;
-- Intake asks whether customers are known, never their names; operators are ids.
GRANT SELECT (operator, kind, id) ON subject TO tally_intake;
GRANT SELECT ON operator TO tally_intake;

-- Streams and usage: intake writes, the application reads.
-- Of a lane intake moves the mark; who enrols it is the application.
GRANT SELECT, UPDATE (key_rank, epoch, number, head, last_sequence, complete_to, opened, closed, ended, last_accepted_at)
    ON lane TO tally_intake;
GRANT SELECT, INSERT, UPDATE ON sibling TO tally_intake;
GRANT SELECT, INSERT, UPDATE (root_checked) ON batch TO tally_intake;
GRANT SELECT, INSERT ON seal_fact, seal_sum TO tally_intake;
-- What was held for a missing batch is accepted when that one has come, and is then listed in batch.
GRANT SELECT, INSERT, DELETE ON held, set_aside TO tally_intake;
GRANT UPDATE (batches, seen_at) ON set_aside TO tally_intake;
GRANT UPDATE (code, what, path, due_at, missing) ON held TO tally_intake;
GRANT SELECT, INSERT, DELETE ON partial_sum, partial_hour, hourly_usage TO tally_intake;
GRANT SELECT, INSERT, UPDATE ON kafka_position TO tally_intake;
GRANT SELECT, INSERT, UPDATE (what, looked_at), DELETE ON root_fault TO tally_intake;
GRANT SELECT ON kafka_position, root_fault TO tally_app;
GRANT SELECT ON usage_cell, late_bound TO tally_intake;
GRANT SELECT ON lane, batch, sibling, seal_fact, seal_sum, held, set_aside, partial_sum, partial_hour, hourly_usage, usage_cell TO tally_app;
GRANT SELECT, INSERT, UPDATE (state, voided_at, void_reason) ON import_file TO tally_app;

-- Keys and decisions: intake reads them.
GRANT SELECT ON lane_key, decision TO tally_intake;
GRANT INSERT (operator, node, lane, kind, enrolled_at) ON lane TO tally_app;
GRANT SELECT, INSERT, UPDATE (revoked_at, last_good_epoch, last_good_number, last_good_hash) ON lane_key TO tally_app;
GRANT SELECT, INSERT ON node_key, decision TO tally_app;

-- The log: only triggers add leaves, with the owner's rights; the sequencer is the application.
GRANT SELECT, UPDATE (nonce, content) ON leaf TO tally_app;
GRANT SELECT, DELETE ON leaf_waiting TO tally_app;
GRANT SELECT, INSERT ON log_entry TO tally_app;
GRANT SELECT, INSERT, UPDATE ON log_head TO tally_app;

-- A restore is the owner's; everybody else only asks whether it is complete.
GRANT SELECT ON unfinished_restore TO tally_app;

-- The archive: what people decide about it.
GRANT SELECT, INSERT, UPDATE (removed_at, removed_reason) ON legal_hold TO tally_app;
GRANT SELECT, INSERT ON expiry TO tally_app;
GRANT SELECT, INSERT ON stray_dismissal TO tally_app;

-- Money: the application only, and what is append-only can only be appended to.
GRANT SELECT, INSERT ON late_bound, adjustment, settlement, journal_entry, posting, period_close TO tally_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON document TO tally_app;
GRANT SELECT, INSERT, UPDATE ON number_series TO tally_app;

-- Which key is this? Asked with the digest of a secret by somebody who can't know the operator yet; who holds a secret
-- may learn whose it is, and nothing is told about any other key.
CREATE FUNCTION find_api_key(digest bytea) RETURNS SETOF api_key
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT * FROM public.api_key k WHERE k.secret_sha256 = digest;
END;
-- In which zone does an operator's month begin? Intake needs that to tell what comes late, and nothing else of what an
-- operator's site files say: names, addresses, accounts, prices.
CREATE FUNCTION operator_zones(operators text[]) RETURNS TABLE (operator text, zone text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT DISTINCT ON (d.operator) d.operator, d.body ->> 'timezone' FROM public.site_document d
    WHERE d.kind = 'operator' AND d.operator = ANY (operators) ORDER BY d.operator, d.valid_from DESC;
END;
REVOKE ALL ON FUNCTION find_api_key, operator_zones FROM PUBLIC;
GRANT EXECUTE ON FUNCTION operator_zones TO tally_intake;
GRANT EXECUTE ON FUNCTION find_api_key TO tally_app;

-- Trigger functions run without anyone's right to call them.
REVOKE ALL ON FUNCTION refuse_change, refuse_change_of_issued, refuse_step_back, refuse_change_of_batch, refuse_change_of_key, refuse_change_of_hold,
    check_entry_balances, await_number, check_numbered, refuse_change_of_leaf, check_log_grows, add_batch_leaves,
    add_change_leaf FROM PUBLIC;
