CREATE INDEX audit_at ON audit (at, revision);
CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit trail is never rewritten'); END;
CREATE TRIGGER audit_is_not_removed BEFORE DELETE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit trail is never rewritten'); END;
CREATE TRIGGER audit_is_not_replaced BEFORE INSERT ON audit
WHEN EXISTS (SELECT 1 FROM audit WHERE revision = NEW.revision)
BEGIN SELECT RAISE(ABORT, 'the audit trail is never rewritten'); END;
CREATE TRIGGER audit_subject_is_not_changed BEFORE UPDATE ON audit_subject
BEGIN SELECT RAISE(ABORT, 'the audit trail is never rewritten'); END;
CREATE TRIGGER audit_subject_is_not_removed BEFORE DELETE ON audit_subject
BEGIN SELECT RAISE(ABORT, 'the audit trail is never rewritten'); END;
INSERT OR IGNORE INTO audit_subject (subject, revision)
SELECT j.key, a.revision FROM audit a, json_each(a.body, '$.after') j;
