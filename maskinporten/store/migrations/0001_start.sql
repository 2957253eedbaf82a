CREATE TABLE revision (n BIGINT NOT NULL);
INSERT INTO revision (n) VALUES (0);
CREATE TABLE entity (
    kind TEXT NOT NULL,
    id TEXT NOT NULL,
    revision BIGINT NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (kind, id)
);
CREATE INDEX entity_revision ON entity (revision);
CREATE TABLE audit (
    revision BIGINT NOT NULL PRIMARY KEY,
    at BIGINT NOT NULL,
    body TEXT NOT NULL
);
CREATE TABLE audit_subject (
    subject TEXT NOT NULL,
    revision BIGINT NOT NULL,
    PRIMARY KEY (subject, revision)
);
