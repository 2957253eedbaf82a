"""The manifests: rendered by kustomize, held against Kubernetes' schemas and our own promises."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml

from maskinporten.cli import parser
from maskinporten.commands import serve
from maskinporten.settings import SETTINGS, Settings
from maskinporten.web.selfservice.routes import BASES, ENDPOINTS
from tests.world import Server

ROOT = Path(__file__).parent.parent
KUBECTL = Path(sys.prefix) / "bin" / "kubectl"
VERSIONS = ("1.37", "1.32")  # the newest, and the oldest that a cluster of today may have
OVERLAYS = ("test", "prod")
Manifest = dict[str, Any]


def rendered(folder: Path) -> list[Manifest]:
    """What `kubectl apply -k` would send."""
    made = subprocess.run(
        [KUBECTL, "kustomize", folder], capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stderr
    assert not made.stderr, made.stderr  # nothing in it is deprecated
    return list(yaml.safe_load_all(made.stdout))


@cache
def overlay(name: str) -> list[Manifest]:
    """The manifests of an environment."""
    return rendered(ROOT / "k8s" / "overlays" / name)


def of_kind(manifests: list[Manifest], kind: str) -> Manifest:
    """The only manifest of that kind."""
    (found,) = (m for m in manifests if m["kind"] == kind)
    return found


def pod_specs(manifests: list[Manifest]) -> list[Manifest]:
    """Every pod that would run."""
    return [m["spec"]["template"]["spec"] for m in manifests if m["kind"] in {"Deployment", "Job"}]


def schema_faults(manifests: list[Manifest]) -> list[str]:
    """What Kubernetes' published schemas say, strictly: an unknown member is a fault."""
    faults = []
    for manifest in manifests:
        if manifest["kind"] == "ServiceMonitor":
            continue  # another project's kind; looked at by itself
        for version in VERSIONS:
            try:
                kubernetes_validate.validate(manifest, version, strict=True)
            except kubernetes_validate.ValidationError as fault:
                faults.append(f"{manifest['kind']}: {fault.message}")
    return faults


@pytest.mark.parametrize("name", OVERLAYS)
def test_what_is_rendered_fits_the_published_schemas(name: str) -> None:
    """Of the newest Kubernetes, and of the oldest we mean to run on."""
    assert not schema_faults(overlay(name))


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_piece_is_there(name: str) -> None:
    """One of each, in the environment's own namespace."""
    kinds = sorted(manifest["kind"] for manifest in overlay(name))

    assert kinds == [
        "ConfigMap", "Deployment", "HorizontalPodAutoscaler", "Ingress", "Job", "NetworkPolicy",
        "PodDisruptionBudget", "Service", "ServiceAccount", "ServiceMonitor",
    ]  # fmt: skip
    assert {m["metadata"]["namespace"] for m in overlay(name)} == {f"maskinporten-{name}"}


def restricted_faults(pod: Manifest) -> list[str]:
    """Where a pod does not meet the Pod Security Standard `restricted`."""
    faults = []
    context = pod.get("securityContext", {})
    if context.get("runAsNonRoot") is not True:
        faults.append("may run as root")
    if context.get("seccompProfile", {}).get("type") not in {"RuntimeDefault", "Localhost"}:
        faults.append("has no seccomp profile")
    if any(pod.get(name) for name in ("hostNetwork", "hostPID", "hostIPC")):
        faults.append("shares a namespace of the host")
    allowed = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "projected", "secret"}
    allowed |= {"persistentVolumeClaim", "name"}
    faults += [f"volume {v['name']}" for v in pod.get("volumes", []) if v.keys() - allowed]
    for container in pod["containers"]:
        own = container.get("securityContext", {})
        if own.get("allowPrivilegeEscalation") is not False:
            faults.append("may gain privileges")
        if own.get("capabilities", {}).get("drop") != ["ALL"] or "add" in own["capabilities"]:
            faults.append("keeps capabilities")
        if own.get("privileged"):
            faults.append("is privileged")
        if own.get("readOnlyRootFilesystem") is not True:
            faults.append("may write its root")  # stricter than the standard
    return faults


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_pod_is_restricted_and_knows_nothing_of_the_cluster(name: str) -> None:
    """The strictest of the Pod Security Standards, and no token."""
    for pod in pod_specs(overlay(name)):
        assert not restricted_faults(pod)
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False
        assert "runAsUser" not in pod["securityContext"]  # OpenShift gives out its own


def _root(pod: Manifest) -> None:
    pod["securityContext"]["runAsNonRoot"] = False


def _seccomp(pod: Manifest) -> None:
    del pod["securityContext"]["seccompProfile"]


def _capability(pod: Manifest) -> None:
    pod["containers"][0]["securityContext"]["capabilities"] = {"drop": []}


def _host_path(pod: Manifest) -> None:
    pod["volumes"] = [{"name": "host", "hostPath": {"path": "/"}}]


@pytest.mark.parametrize("spoil", [_root, _seccomp, _capability, _host_path])
def test_a_pod_that_is_not_restricted_is_seen(spoil: Callable[[Manifest], None]) -> None:
    """The check above can fail."""
    pod = yaml.safe_load(yaml.safe_dump(pod_specs(overlay("prod"))[0]))
    spoil(pod)

    assert restricted_faults(pod)


SPOILED = [
    pytest.param("deployment.yaml", "periodSeconds: 10", "periodSeconds: ten", id="a wrong type"),
    pytest.param("deployment.yaml", "args: [serve]", "arguments: [serve]", id="an unknown member"),
    pytest.param("service.yaml", "port: 80", "prot: 80", id="a typo in the service"),
]


@pytest.mark.parametrize(("file", "right", "wrong"), SPOILED)
def test_a_broken_manifest_is_seen(file: str, right: str, wrong: str, tmp_path: Path) -> None:
    """The schemas can fail."""
    shutil.copytree(ROOT / "k8s", tmp_path / "k8s")
    path = tmp_path / "k8s" / "base" / file
    assert right in path.read_text()
    path.write_text(path.read_text().replace(right, wrong, 1))

    assert schema_faults(rendered(tmp_path / "k8s" / "overlays" / "prod"))


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_variable_is_a_setting(name: str) -> None:
    """A typo would stop every pod at its start."""
    manifests = overlay(name)
    names = set(of_kind(manifests, "ConfigMap")["data"])
    for pod in pod_specs(manifests):
        names |= {variable["name"] for c in pod["containers"] for variable in c.get("env", [])}

    assert names <= set(SETTINGS)
    assert of_kind(manifests, "ConfigMap")["data"]["MASKINPORTEN_ENVIRONMENT"] == name


@pytest.mark.parametrize("name", OVERLAYS)
def test_commands_and_mounts_fit_the_program(name: str) -> None:
    """The commands exist, and the folders that are named are mounted."""
    command = next(a for a in parser()._actions if isinstance(a.choices, dict))
    assert isinstance(command.choices, dict)
    manifests = overlay(name)
    for pod in pod_specs(manifests):
        assert set(pod["containers"][0]["args"]) <= set(command.choices)
    server = of_kind(manifests, "Deployment")["spec"]["template"]["spec"]["containers"][0]
    data = of_kind(manifests, "ConfigMap")["data"]
    mounts = [mount["mountPath"] for mount in server["volumeMounts"]]
    for variable in ("MASKINPORTEN_TRUST", "MASKINPORTEN_REVOCATION", "MASKINPORTEN_SPOOL"):
        assert any(data[variable].startswith(mount) for mount in mounts)
    assert int(data["MASKINPORTEN_WORKERS"]) == int(server["resources"]["requests"]["cpu"])


def probe_paths() -> set[str]:
    """Where probes and scrapes look."""
    server = of_kind(overlay("prod"), "Deployment")["spec"]["template"]["spec"]["containers"][0]
    probes = ("startupProbe", "readinessProbe", "livenessProbe")
    monitor = of_kind(overlay("prod"), "ServiceMonitor")["spec"]["endpoints"]
    return {server[probe]["httpGet"]["path"] for probe in probes} | {e["path"] for e in monitor}


async def test_probes_and_scrapes_find_their_pages(server: Server) -> None:
    """Every path that the cluster looks at is answered."""
    for path in probe_paths():
        assert (await server.http.get(path)).status_code == 200, path


def test_the_world_reaches_what_is_public_and_nothing_else() -> None:
    """The operator's pages stay inside."""
    rules = of_kind(overlay("prod"), "Ingress")["spec"]["rules"][0]["http"]["paths"]

    def is_public(path: str) -> bool:
        return any(
            path == rule["path"]
            or (rule["pathType"] == "Prefix" and path.startswith(rule["path"] + "/"))
            for rule in rules
        )

    for path in ("/token", "/jwk", "/.well-known/oauth-authorization-server", "/errors/MP-011",
                 "/health", "/api/v1/clients", "/external/api/v1/scopes"):  # fmt: skip
        assert is_public(path), path
    for endpoint in ENDPOINTS:
        # Operators and portals have addresses of their own; without a prefix they stay inside.
        for base in BASES if endpoint.own_base is None else (endpoint.own_base,):
            inside = not base and endpoint.path.startswith(("/operator", "/datasharing"))
            assert is_public(base + endpoint.path) is not inside, base + endpoint.path
    for path in probe_paths() | {"/metrics", "/revocation", "/healthy", "/tokens"}:
        assert not is_public(path), path


def policy_rules(name: str) -> list[tuple[Manifest, set[tuple[int, str]]]]:
    """Where pods may connect to: the peer (empty: anywhere) and the ports."""
    egress = of_kind(overlay(name), "NetworkPolicy")["spec"]["egress"]
    return [
        (rule.get("to", [{}])[0], {(p["port"], p.get("protocol", "TCP")) for p in rule["ports"]})
        for rule in egress
    ]


@pytest.mark.parametrize("name", OVERLAYS)
@pytest.mark.parametrize(
    ("namespace", "port"),
    [
        pytest.param("kube-system", 53, id="Kubernetes"),
        pytest.param("openshift-dns", 5353, id="OpenShift"),
    ],
)
def test_names_can_be_looked_up(name: str, namespace: str, port: int) -> None:
    """Without names there is no database; the two platforms answer at different places."""
    peer = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}

    assert (peer, {(port, "UDP"), (port, "TCP")}) in policy_rules(name)


@pytest.mark.parametrize("name", OVERLAYS)
def test_fetching_does_not_reach_inside(name: str) -> None:
    """A certificate's own addresses cannot make a pod look around the cluster or at the cloud's."""
    (outside,) = [peer for peer, ports in policy_rules(name) if (443, "TCP") in ports]
    private = {"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "100.64.0.0/10"}

    assert private <= set(outside["ipBlock"]["except"])


@pytest.mark.parametrize("name", OVERLAYS)
def test_callers_come_over_tls_to_the_issuer(name: str) -> None:
    """The ingress's host, the certificate's and the issuer's are one."""
    spec = of_kind(overlay(name), "Ingress")["spec"]
    (host,) = [rule["host"] for rule in spec["rules"]]

    assert spec["tls"] == [{"hosts": [host], "secretName": "maskinporten-tls"}]
    issuer = of_kind(overlay(name), "ConfigMap")["data"]["MASKINPORTEN_ISSUER"]
    assert issuer == f"https://{host}/"


def test_a_pod_has_time_to_drain() -> None:
    """SIGKILL comes after the announced leave and what is under way."""
    spec = of_kind(overlay("prod"), "Deployment")["spec"]["template"]["spec"]
    drain = {field.name: field.default for field in fields(Settings)}["drain"]

    assert isinstance(drain, int)
    assert spec["terminationGracePeriodSeconds"] > drain + serve._FINISH


def test_the_monitor_selects_the_service() -> None:
    """The Prometheus operator finds pods through the service's labels and its port's name."""
    monitor, service = (of_kind(overlay("prod"), kind) for kind in ("ServiceMonitor", "Service"))

    assert (
        monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    )
    assert {e["port"] for e in monitor["spec"]["endpoints"]} <= {
        port["name"] for port in service["spec"]["ports"]
    }


def test_the_budget_the_service_and_the_spread_select_the_servers() -> None:
    """One set of labels, or traffic goes to the migration's pod."""
    manifests = overlay("prod")
    pod = of_kind(manifests, "Deployment")["spec"]["template"]
    job = of_kind(manifests, "Job")["spec"]["template"]["metadata"]["labels"]
    selectors = [
        of_kind(manifests, "Deployment")["spec"]["selector"]["matchLabels"],
        of_kind(manifests, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        of_kind(manifests, "Service")["spec"]["selector"],
        *(c["labelSelector"]["matchLabels"] for c in pod["spec"]["topologySpreadConstraints"]),
    ]
    for selector in selectors:
        assert selector.items() <= pod["metadata"]["labels"].items()
        assert not selector.items() <= job.items()


def test_the_page_of_the_operator_names_what_it_makes() -> None:
    """The secret and the trust map are called in the README what the manifests call them."""
    text = (ROOT / "k8s" / "README.md").read_text()
    pod = of_kind(overlay("prod"), "Deployment")["spec"]["template"]["spec"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}

    assert f"secret generic {volumes['secret']['secret']['secretName']} " in text
    assert f"create configmap {volumes['trust']['configMap']['name']} " in text
    for key in ("key-encryption-key", "database-url"):
        assert re.search(rf"--from-(file|literal)={key}", text)
