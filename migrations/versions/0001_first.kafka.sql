-- How far intake has read in Kafka. Written in the transaction that settles what was read, so that after a restart
-- nothing settled is missed or taken for new; the consumer group's own commit is for the display of its lag.

CREATE TABLE kafka_position (
    operator text NOT NULL REFERENCES operator,  -- '*': one topic carries batches of many operators
    source text NOT NULL,           -- cluster id / topic id / topic name: a topic made again is another source
    partition integer NOT NULL,
    next bigint NOT NULL,           -- offset of the first message that is not settled
    PRIMARY KEY (operator, source, partition),
    CONSTRAINT kafka_position_numbers CHECK (partition >= 0 AND next >= 0)
);
COMMENT ON TABLE kafka_position IS 'Where intake goes on reading, by partition of a topic.';
