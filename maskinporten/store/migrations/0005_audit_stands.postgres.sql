CREATE INDEX audit_at ON audit (at, revision);
CREATE FUNCTION audit_is_never_rewritten() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit trail is never rewritten';
END
$$;
CREATE TRIGGER audit_stands BEFORE UPDATE OR DELETE OR TRUNCATE ON audit
    FOR EACH STATEMENT EXECUTE FUNCTION audit_is_never_rewritten();
CREATE TRIGGER audit_subject_stands BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_subject
    FOR EACH STATEMENT EXECUTE FUNCTION audit_is_never_rewritten();
INSERT INTO audit_subject (subject, revision)
SELECT json_object_keys(replace(body, '\u0000', '\u0001')::json -> 'after'), revision FROM audit
ON CONFLICT DO NOTHING;
