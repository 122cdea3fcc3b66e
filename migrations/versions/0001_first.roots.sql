-- The second pass over accepted batches: which of their Merkle roots did not hold. Those that did are root_checked.

CREATE TABLE root_fault (
    operator text NOT NULL,
    node text NOT NULL,
    lane text NOT NULL,
    epoch text NOT NULL,
    number bigint NOT NULL,
    what text NOT NULL,
    found_at timestamptz NOT NULL DEFAULT now(),
    looked_at timestamptz NOT NULL,     -- it is looked at again now and then: its file may have been restored
    PRIMARY KEY (operator, node, lane, epoch, number),
    FOREIGN KEY (operator, node, lane, epoch, number) REFERENCES batch
);
COMMENT ON TABLE root_fault IS 'Accepted batches of whose events nothing can be proven, and why; they block a close.';

-- The pass asks for the oldest that are unchecked, of all operators.
CREATE INDEX batch_root_unchecked ON batch (accepted_at) WHERE NOT root_checked;
