CREATE TABLE jwk_fetch (
    library TEXT NOT NULL,
    network TEXT NOT NULL,
    kid TEXT NOT NULL,
    at BIGINT NOT NULL,
    PRIMARY KEY (library, network, kid)
);
