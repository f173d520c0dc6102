"""deploy/kubernetes/qdrant.yaml: its parts hang together, its rights are few, its sizes are those of the arithmetic."""

import importlib.metadata
from pathlib import Path

import pytest
import yaml
from checks import formats

from llminfra.stores import ann

PATH = Path(__file__).parents[1] / "deploy" / "kubernetes" / "qdrant.yaml"
TEXT = PATH.read_text(encoding="utf-8")
DOCUMENTS = list(yaml.safe_load_all(TEXT))
GIB = 2**30


def kind(name, called="qdrant"):
    (found,) = [one for one in DOCUMENTS if one["kind"] == name and one["metadata"]["name"] == called]
    return found


SPEC = kind("StatefulSet")["spec"]
POD = SPEC["template"]["spec"]
(SERVER,) = POD["containers"]
LABELS = SPEC["template"]["metadata"]["labels"].items()


def test_it_is_valid_for_kubernetes():
    assert formats.yaml_text(TEXT) == []


@pytest.mark.parametrize(
    ("good", "bad", "words"),
    [
        ("maxUnavailable: 1", "maxUnavailible: 1", "maxUnavailible"),
        ("replicas: 3", 'replicas: "3"', "3"),
        ("publishNotReadyAddresses", "publishNotReady", "publishNotReady"),
        ("volumeClaimTemplates", "volumeClaimTemplate", "volumeClaimTemplate"),
        ("interval: 15s", "intervall: 15s", "intervall"),
    ],
)
def test_a_misspelt_field_is_refused(good, bad, words):
    assert TEXT.count(good) == 1
    assert any(words in reason for _, reason in formats.yaml_text(TEXT.replace(good, bad)))


def test_the_parts_hang_together():
    ports = {port["name"] for port in SERVER["ports"]}
    assert SPEC["selector"]["matchLabels"].items() <= LABELS
    for name in ("qdrant", "qdrant-headless"):
        service = kind("Service", name)
        assert service["spec"]["selector"].items() <= LABELS
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports
    assert SPEC["serviceName"] == "qdrant-headless"
    assert kind("Service", "qdrant-headless")["spec"]["publishNotReadyAddresses"], "or no peer ever finds another"
    for name in ("PodDisruptionBudget", "NetworkPolicy"):
        selector = kind(name)["spec"].get("selector") or kind(name)["spec"]["podSelector"]
        assert selector["matchLabels"].items() <= LABELS
    monitored = kind("ServiceMonitor")["spec"]["selector"]["matchLabels"].items()
    services = [one["metadata"] for one in DOCUMENTS if one["kind"] == "Service"]
    assert [one["name"] for one in services if monitored <= one["labels"].items()] == ["qdrant-headless"], (
        "each pod once"
    )
    mounts = {mount["name"] for mount in SERVER["volumeMounts"]}
    claims = {claim["metadata"]["name"] for claim in SPEC["volumeClaimTemplates"]}
    assert mounts == claims | {volume["name"] for volume in POD["volumes"]}
    assert all(claim["spec"]["accessModes"] == ["ReadWriteOnce"] for claim in SPEC["volumeClaimTemplates"])


def test_two_of_three_stay_whatever_happens():
    assert SPEC["replicas"] == 3 and kind("PodDisruptionBudget")["spec"]["maxUnavailable"] == 1
    (spread,) = POD["topologySpreadConstraints"]
    assert spread["topologyKey"] == "kubernetes.io/hostname" and spread["whenUnsatisfiable"] == "DoNotSchedule"
    assert SERVER["startupProbe"]["periodSeconds"] * SERVER["startupProbe"]["failureThreshold"] >= 300
    assert {
        probe: SERVER[probe]["httpGet"]["path"] for probe in ("startupProbe", "readinessProbe", "livenessProbe")
    } == {
        "startupProbe": "/readyz",
        "readinessProbe": "/readyz",
        "livenessProbe": "/livez",
    }


def test_it_runs_with_the_least_rights():
    assert POD["securityContext"]["runAsNonRoot"] and not POD["automountServiceAccountToken"]
    assert SERVER["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    secrets = [one for one in SERVER["env"] if "KEY" in one["name"]]
    assert len(secrets) == 2 and all("secretKeyRef" in one["valueFrom"] for one in secrets)
    policy = kind("NetworkPolicy")["spec"]
    peers = [rule["from"] for rule in policy["ingress"] if {"port": "p2p"} in rule["ports"]]
    assert peers == [[{"podSelector": {"matchLabels": {"app.kubernetes.io/name": "qdrant"}}}]], "this port takes writes"
    assert all("to" in rule for rule in policy["egress"])


def test_the_image_is_the_version_of_the_client():
    assert SERVER["image"] == f"qdrant/qdrant:v{importlib.metadata.version('qdrant-client')}-unprivileged"


def test_ten_million_vectors_fit():
    size = ann.capacity_bytes(10**7, 384, "int8", payload_bytes=500)
    here = 2 / 3  # two copies on three nodes
    wanted = here * 1.5 * (size["vectors"] + size["graph"]) / GIB
    assert wanted < float(SERVER["resources"]["requests"]["memory"].removesuffix("Gi")) < 1.5 * wanted
    (storage, snapshots) = [
        float(claim["spec"]["resources"]["requests"]["storage"].removesuffix("Gi"))
        for claim in SPEC["volumeClaimTemplates"]
    ]
    assert here * 2 * sum(size.values()) / GIB < storage == snapshots
