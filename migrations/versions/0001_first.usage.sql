-- Partitions of usage: operator, then UTC month. Intake calls this before COPY, and is the only one that may: it runs
-- as the owner, so that intake needs no right to create tables and the application none on partitions.

CREATE FUNCTION ensure_usage_partitions(operator text, month date) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    first_day date := date_trunc('month', month::timestamp)::date;
    -- An id may be longer than a table name may be, and hold dots; its digest is neither.
    digest text := left(encode(sha256(convert_to(operator, 'UTF8')), 'hex'), 24);
    parent text;
    branch text;
    leaf text;
BEGIN
    IF operator IS NULL OR operator = '*' OR month IS NULL
       OR NOT EXISTS (SELECT FROM public.operator o WHERE o.operator = ensure_usage_partitions.operator) THEN
        RAISE EXCEPTION 'no such operator: %', operator USING ERRCODE = 'invalid_parameter_value';
    END IF;
    -- The span in which an event's time is accepted; without it a wrong clock could make tables without end.
    IF first_day < date '2020-01-01' OR first_day > now() + interval '32 days' THEN
        RAISE EXCEPTION 'no usage can be of %', first_day USING ERRCODE = 'invalid_parameter_value';
    END IF;
    leaf := format('hourly_usage_%s_%s', digest, to_char(first_day, 'YYYYMM'));
    IF to_regclass('public.' || leaf) IS NOT NULL THEN  -- the last one made below: all four are there
        RETURN;
    END IF;
    -- Two workers that need the same month: the second waits here and then finds it made.
    PERFORM pg_advisory_xact_lock(hashtextextended('tally.usage_partitions/' || operator, 0));
    FOREACH parent IN ARRAY ARRAY['partial_sum', 'hourly_usage'] LOOP
        branch := parent || '_' || digest;
        leaf := branch || '_' || to_char(first_day, 'YYYYMM');
        IF to_regclass('public.' || branch) IS NULL THEN
            EXECUTE format(
                'CREATE TABLE public.%I (LIKE public.%I INCLUDING CONSTRAINTS) PARTITION BY RANGE (hour)',
                branch, parent);
            EXECUTE format('COMMENT ON TABLE public.%I IS %L', branch, 'Usage of ' || operator);
            PERFORM public.guard_usage_partition(branch);
            -- ATTACH takes a weaker lock on the parent than CREATE … PARTITION OF: others go on reading and copying.
            EXECUTE format('ALTER TABLE public.%I ATTACH PARTITION public.%I FOR VALUES IN (%L)',
                parent, branch, operator);
        END IF;
        IF to_regclass('public.' || leaf) IS NULL THEN
            EXECUTE format('CREATE TABLE public.%I (LIKE public.%I INCLUDING CONSTRAINTS)', leaf, parent);
            IF parent = 'partial_sum' THEN
                -- Its arrays stay in their row, of up to a page: moved out of it, each would be a row of another table.
                EXECUTE format('ALTER TABLE public.%I SET (toast_tuple_target = 8160)', leaf);
            END IF;
            EXECUTE format('COMMENT ON TABLE public.%I IS %L', leaf,
                'Usage of ' || operator || ' in ' || to_char(first_day, 'YYYY-MM'));
            PERFORM public.guard_usage_partition(leaf);
            EXECUTE format('ALTER TABLE public.%I ATTACH PARTITION public.%I FOR VALUES FROM (%L) TO (%L)',
                branch, leaf, first_day || ' 00:00:00+00', (first_day + interval '1 month')::date || ' 00:00:00+00');
        END IF;
    END LOOP;
END
$$;
COMMENT ON FUNCTION ensure_usage_partitions IS 'Makes the partitions of one operator and UTC month, unless they are there.';

-- Partitions have no grants: everybody goes through the parent, where the operator's policy holds. Should one ever
-- be granted by mistake, row-level security of its own still shows nothing to anyone but the owner.
CREATE FUNCTION guard_usage_partition(name text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    EXECUTE format('ALTER TABLE public.%I ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', name);
    EXECUTE format('CREATE POLICY owner ON public.%I TO tally_owner USING (true) WITH CHECK (true)', name);
    EXECUTE format('REVOKE ALL ON public.%I FROM PUBLIC', name);
END
$$;

REVOKE ALL ON FUNCTION ensure_usage_partitions, guard_usage_partition FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ensure_usage_partitions TO tally_intake;
