"""The test PKI and the trust directory, as an operator and a tester use them."""

import json
import os
import socket
import subprocess
import time
from pathlib import Path

import httpx
import pytest

from maskinporten import pki
from maskinporten.cli import main
from maskinporten.domain.link import read_link
from maskinporten.domain.revocation import read_crl
from maskinporten.domain.seal import verify_seal
from maskinporten.errors import InvalidInput
from maskinporten.issuer_folder import make_issuer_folder, open_issuer_folder, serve_issuer_folder
from maskinporten.trust import read_certificates, read_published, read_trust
from tests.chains import enterprise, issuing, root, trust_folder
from tests.test_cli import started, wait_until_ready
from tests.world import CONSUMER, NOW

ROOT = Path(__file__).parent.parent


@pytest.fixture
def password(tmp_path: Path) -> Path:
    """A file with a password in it."""
    path = tmp_path / "password"
    path.write_text("hemmelig\n")
    return path


def test_a_pki_is_made_once_and_opened_again(tmp_path: Path) -> None:
    """A second `make` changes nothing."""
    made = make_issuer_folder(tmp_path / "pki", NOW)
    again = make_issuer_folder(tmp_path / "pki", NOW + 1)

    assert again.root.der == made.root.der
    with pytest.raises(InvalidInput, match="maskinporten pki make"):
        open_issuer_folder(tmp_path)


def test_lists_are_served_and_name_what_was_revoked(tmp_path: Path) -> None:
    """Over HTTP, signed by the authority whose list it is."""
    issuers = make_issuer_folder(tmp_path / "pki", NOW)
    issued = issuers.issue(CONSUMER, NOW)
    issuers.revoke(issued.certificate, NOW)
    server = serve_issuer_folder(issuers, ("127.0.0.1", 0), lambda: NOW)
    try:
        url = f"http://127.0.0.1:{server.server_port}"
        served = httpx.get(f"{url}/issuing.crl").content
        found = read_crl(served, read_link(issuers.issuing.der), NOW)
        of_root = read_crl(httpx.get(f"{url}/root.crl").content, read_link(issuers.root.der), NOW)
    finally:
        server.shutdown()
        server.server_close()

    assert found.revoked == {issued.certificate.serial_number}
    assert of_root.revoked == set()
    with pytest.raises(InvalidInput, match="not a certificate of this PKI"):
        issuers.revoke(enterprise().certificate, NOW)


def test_pkcs12_in_and_out(
    tmp_path: Path, password: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As issuers deliver it, and back to what `token` takes."""
    folder, bundle = str(tmp_path / "pki"), tmp_path / "enterprise.p12"
    assert main(["pki", "make", "--folder", folder]) == 0
    issue = ["pki", "issue", "--folder", folder, CONSUMER, "--generation", "seid1"]
    assert main([*issue, "--p12", str(bundle), "--password-file", str(password)]) == 0
    capsys.readouterr()
    unpack = ["pki", "unpack", str(bundle), "--to", str(tmp_path / "mine")]
    assert main([*unpack, "--password-file", str(password)]) == 0

    assert capsys.readouterr().out == (
        f"--cert-chain {tmp_path}/mine.pem --key {tmp_path}/mine.key.pem\n"
    )
    assert (tmp_path / "mine.pem").read_text().count("BEGIN CERTIFICATE") == 3
    assert (tmp_path / "mine.key.pem").stat().st_mode & 0o077 == 0
    password.write_text("wrong")
    assert main([*unpack, "--password-file", str(password)]) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["issue", "123456789"], id="no organisation number"),
        pytest.param(["issue", CONSUMER, "--days", "0"], id="no days"),
        pytest.param(["revoke", "nothing.pem"], id="no file"),
    ],
)
def test_refuses(tmp_path: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """One sentence, and exit code 1."""
    make_issuer_folder(tmp_path, NOW)

    assert main(["pki", arguments[0], "--folder", str(tmp_path), *arguments[1:]]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_published_fingerprints() -> None:
    """Every row of the dossier, once, and each environment's directory can be read."""
    published = read_published(ROOT / "keys/trust/published.toml")

    assert len(published) == 14
    assert all(entry.environment in {"test", "prod"} for entry in published.values())
    for environment in ("test", "prod"):
        trust = read_trust(ROOT / "keys/trust" / environment, environment)
        assert trust.store.policies
        assert trust.authorities == ()
    readme = (ROOT / "keys/trust/README.md").read_text()
    assert all(sha256 in readme for sha256 in published)


def test_pki_seal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A seal of its own authority, accepted by the trust directory of the same PKI; revocable."""
    folder = ["--folder", str(tmp_path / "pki")]
    assert main(["pki", "make", *folder]) == 0
    assert main(["pki", "trust", *folder, str(tmp_path / "before")]) == 0
    assert read_trust(tmp_path / "before", "test").european == ()
    capsys.readouterr()
    chains = []
    for further in ([], ["--unqualified"]):
        assert main(["pki", "seal", *folder, "VATDE-123456789", *further]) == 0
        chains.append(Path(capsys.readouterr().out.split()[1]))
    assert main(["pki", "trust", *folder, str(tmp_path / "trust")]) == 0
    store = read_trust(tmp_path / "trust", "test").seals
    now = int(time.time())
    found = [
        verify_seal(tuple(link.der for link in read_certificates(chain)), store, now)
        for chain in chains
    ]
    assert [each.client_amr for each in found] == ["QCForESeal", "CForESeal"]
    assert {each.holder.identifier for each in found} == {"VATDE-123456789"}
    assert {each.holder.country_name for each in found} == {"DE"}
    assert main(["pki", "revoke", *folder, str(chains[0])]) == 0
    issuers = open_issuer_folder(tmp_path / "pki")
    authority = issuers.find_seal_authority()
    assert authority is not None
    listed = read_crl(issuers.list_of(authority, now), read_link(authority.der), now)
    assert listed.revoked == {found[0].serial}
    for wrong in (["vat"], ["../../VATDE-1"], ["VATDE-1", "--days", "0"]):
        assert main(["pki", "seal", *folder, *wrong]) == 1


def published_as(folder: Path, environment: str) -> None:
    """As if our test root were published for that environment."""
    sha256 = root().certificate.fingerprint(pki.SHA256).hex()
    (folder.parent / "published.toml").write_text(
        f'[[authority]]\nname = "Root"\nrole = "root"\nenvironment = "{environment}"\n'
        f'sha256 = "{sha256}"\n'
    )


def test_trust_add_list_and_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A published authority is taken, an unpublished one by the operator's word alone."""
    folder = trust_folder(tmp_path)
    for pem in folder.glob("*.pem"):
        pem.unlink()
    published_as(folder, "test")
    files = {name: tmp_path / f"{name}.pem" for name in ("root", "issuing", "leaf")}
    for name, issued in (("root", root()), ("issuing", issuing()), ("leaf", enterprise())):
        files[name].write_bytes(pki.chain_pem(issued.certificate))
    where = ["--trust", str(folder)]

    assert main(["trust", "add", *where, str(files["root"])]) == 0
    assert "anchor" in capsys.readouterr().out
    assert main(["trust", "add", *where, str(files["issuing"])]) == 1
    assert "--unpublished" in capsys.readouterr().err
    assert main(["trust", "add", *where, "--unpublished", str(files["issuing"])]) == 0
    assert "intermediate" in capsys.readouterr().out
    assert main(["trust", "add", *where, "--unpublished", str(files["leaf"])]) == 1
    assert "not the certificate of an authority" in capsys.readouterr().err
    assert main(["trust", "check", *where, str(files["root"])]) == 0
    assert "published: Root, root, test" in capsys.readouterr().out
    assert main(["trust", "check", *where, str(files["root"]), str(files["issuing"])]) == 1
    assert "NOT PUBLISHED" in capsys.readouterr().out
    assert main(["trust", "list", *where]) == 0
    listed = capsys.readouterr().out
    assert listed.count("sha256") == 2
    assert "published as Root" in listed


def test_an_authority_of_the_other_environment(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A production authority in the test directory stops the server and `trust add` alike."""
    folder = trust_folder(tmp_path)
    published_as(folder, "prod")
    pem = tmp_path / "root.pem"
    pem.write_bytes(pki.chain_pem(root().certificate))

    assert main(["trust", "add", "--trust", str(folder), str(pem)]) == 1
    assert "belongs to prod" in capsys.readouterr().err
    with pytest.raises(InvalidInput, match="belongs to prod"):
        read_trust(folder, "test")


FAULTS = [
    pytest.param('environment = "test"\npolicies = 1\n', "policies", id="policies"),
    pytest.param('environment = "test"\nsurprise = 1\n', "surprise", id="an unknown member"),
    pytest.param(
        'environment = "test"\n[revocation]\nwhen_stale = "maybe"\n', "when_stale", id="w"
    ),
    pytest.param('environment = "test"\n[revocation]\ngrace = -1\n', "grace", id="grace"),
    pytest.param('environment = "test"\n[revocation]\nx = 1\n', "knows", id="revocation"),
    pytest.param('environment = "test"\n[[authority]]\nsha256 = "1"\n', "64", id="fingerprint"),
    pytest.param("environment", "not TOML", id="not TOML"),
]


@pytest.mark.parametrize(("text", "named"), FAULTS)
def test_a_trust_file_with_a_fault(tmp_path: Path, text: str, named: str) -> None:
    """Said at start-up, by name."""
    folder = trust_folder(tmp_path)
    (folder / "trust.toml").write_text(text)

    with pytest.raises(InvalidInput, match=named):
        read_trust(folder, "test")


def test_a_file_that_is_no_certificate_stops_the_server(tmp_path: Path) -> None:
    """An operator hears which."""
    folder = trust_folder(tmp_path)
    (folder / "broken.pem").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n")
    (folder / "leaf.der").write_bytes(enterprise().der)

    with pytest.raises(InvalidInput) as caught:
        read_trust(folder, "test")
    assert sorted(Path(fault.path).name for fault in caught.value.faults) == [
        "broken.pem",
        "leaf.der",
    ]


def test_dev_takes_its_own_certificate_until_it_is_revoked(tmp_path: Path) -> None:
    """The whole of it, over HTTP between processes: issued, used, revoked, refused."""
    with started("dev", "--port", "0", cwd=tmp_path) as dev:
        assert dev.stdout is not None
        lines = []
        for line in dev.stdout:
            lines.append(line.strip())
            if line.startswith("Stop with"):
                break
        issuer = next(line.split()[-1] for line in lines if line.startswith("listens on"))
        wait_until_ready(issuer)
        ask, revoke = (
            next(line for line in lines if mark in line) for mark in ("--cert-chain", "pki revoke")
        )
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}

        def run(command: str) -> "subprocess.CompletedProcess[str]":
            return subprocess.run(  # noqa: S602 - the lines are our own
                command, shell=True, env=environment, capture_output=True, text=True, check=False
            )

        token = run(f"{ask} --decode")
        assert token.returncode == 0, token.stderr
        assert json.loads(token.stdout)["claims"]["client_amr"] == "virksomhetssertifikat"
        assert run(revoke).returncode == 0
        deadline = time.monotonic() + 20
        while (answer := run(ask)).returncode == 0:
            assert time.monotonic() < deadline
        assert json.loads(answer.stderr)["error_uri"].endswith("MP-120")


@pytest.mark.parametrize(("fault", "told"), [(BrokenPipeError(), False), (ValueError(), True)])
def test_a_caller_that_leaves_is_no_news(
    fault: Exception, told: object, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The first screen of `dev` is for its user: no traceback for a fetch that was broken off."""
    issuers = make_issuer_folder(tmp_path / "pki", NOW)
    server = serve_issuer_folder(issuers, ("127.0.0.1", 0), lambda: NOW)
    try:
        raise fault
    except type(fault):
        with socket.socket() as caller:
            server.handle_error(caller, ("127.0.0.1", 1))
    finally:
        server.shutdown()
        server.server_close()

    assert ("Traceback" in capfd.readouterr().err) is bool(told)
