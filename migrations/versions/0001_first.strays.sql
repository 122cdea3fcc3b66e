-- What people dismissed of the batches that no enrolled key vouches for. Their files stay in held/ and their rows in
-- set_aside, because their lane may be enrolled yet; they are only no longer something that somebody has to look at.

CREATE TABLE stray_dismissal (
    operator text NOT NULL REFERENCES operator,
    id uuid NOT NULL,
    batches jsonb NOT NULL,         -- set_aside's digest -> how many batches it stood for; more of it are listed again
    reason text NOT NULL,
    dismissed_at timestamptz NOT NULL,
    PRIMARY KEY (operator, id),
    CONSTRAINT stray_dismissal_says_why CHECK (reason <> '')
);
COMMENT ON TABLE stray_dismissal IS 'Batches that nobody''s key vouches for, and that a person looked at and dismissed.';
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON stray_dismissal EXECUTE FUNCTION refuse_change();
CREATE TRIGGER log_leaf AFTER INSERT ON stray_dismissal FOR EACH ROW EXECUTE FUNCTION add_change_leaf();
