"""Each file under deploy/ is read by the tool that would consume it, and its numbers by the course's arithmetic."""

import importlib.metadata
import io
import json
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from checks import formats
from checks.engine_cli import BadArgs, check_serve_args, serve_args

from llminfra.calc import memory, tables
from llminfra.models import MODELS

DEPLOY = Path(__file__).parents[1] / "deploy"
UNIT = DEPLOY / "systemd" / "vllm.service"
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("vllm*.yaml"))
DOCKERFILES = [DEPLOY / "container" / "Dockerfile", DEPLOY / "container" / "Dockerfile.cpu"]
# A process of its own, since it imports vLLM.
pytestmark = pytest.mark.heavy
GPUS = {"NVIDIA-A10G": "a10g", "Tesla-T4": "t4"}


# What the files say.


def documents(path):
    return list(yaml.safe_load_all(path.read_text(encoding="utf-8")))


def kind(path, name):
    (found,) = [document for document in documents(path) if document["kind"] == name]
    return found


def pod(path):
    return kind(path, "Deployment")["spec"]["template"]["spec"]


def server(path):
    (container,) = pod(path)["containers"]
    return container


def unit(path):
    return formats.unit_sections(path.read_text(encoding="utf-8"))


def dockerfile(path):
    from dockerfile_parse import DockerfileParser

    return DockerfileParser(fileobj=io.BytesIO(path.read_bytes()))


def last(path, instruction):
    return [line["value"] for line in dockerfile(path).structure if line["instruction"] == instruction][-1]


def commands():
    """Yield (file, GPU or None, arguments) of each server that a file under deploy/ starts."""
    for path in MANIFESTS:
        container = server(path)
        yield (
            path.name,
            GPUS[pod(path)["nodeSelector"]["nvidia.com/gpu.product"]],
            container["command"] + container["args"],
        )
    for path in DOCKERFILES:
        command = json.loads(last(path, "ENTRYPOINT")) + json.loads(last(path, "CMD"))
        yield path.name, None if path.suffix == ".cpu" else "a10g", command
    yield UNIT.name, "a10g", shlex.split(dict(unit(UNIT)["Service"])["ExecStart"])


COMMANDS = list(commands())
each_command = pytest.mark.parametrize(("gpu", "command"), [c[1:] for c in COMMANDS], ids=[c[0] for c in COMMANDS])
each_manifest = pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
each_dockerfile = pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)


# The engine's arguments, by the engine's own parser.


@each_command
def test_the_installed_engine_takes_the_arguments(gpu, command):
    parsed = check_serve_args(serve_args(command))
    assert parsed.shutdown_timeout > 0, "a stop would cut running requests off"
    assert parsed.max_num_queued_reqs, "the queue would grow without bound"
    assert parsed.served_model_name == [parsed.model_tag.rsplit("/", 1)[-1]]


@each_command
def test_the_memory_suffices(gpu, command):
    parsed = check_serve_args(serve_args(command))
    if gpu is None:
        assert parsed.enforce_eager and parsed.max_model_len <= 2048
        assert parsed.dtype == MODELS["cpu"].engine_args["dtype"]
        return
    record = tables.gpu(gpu)
    assert parsed.dtype == ("bfloat16" if record["bf16"] else "half")
    plan = memory.plan(
        parsed.model_tag.rsplit("/", 1)[-1],
        gpu,
        "bf16" if record["bf16"] else "fp16",
        parsed.max_model_len,
        gpu_memory_utilization=parsed.gpu_memory_utilization,
        max_num_seqs=parsed.max_num_seqs,
    )
    assert plan["max_concurrent"] >= 8, "at least eight of the longest requests run at once"
    assert plan["kv_tokens"] >= parsed.max_num_seqs * 1024, "with 1,024 tokens each, the cache is not the limit"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["m", "--invented-flag", "3"], "unrecognized arguments: --invented-flag"),
        (["m", "--max-model-le", "4096"], "unrecognized arguments: --max-model-le"),
        (["m", "--max-num-seqs", "many"], "max-num-seqs.*invalid"),
        (["m", "--max-num-seqs", "0"], "greater than or equal to 1"),
        (["m", "--gpu-memory-utilization", "1.2"], "less than or equal to 1"),
        (["m", "--dtype", "fp15"], "invalid choice: 'fp15'"),
        (["m", "--enable-auto-tool-choice"], "requires --tool-call-parser"),
        (["m", "n"], "unrecognized arguments: n"),
        (["--dtype", "half"], "no model"),
        (["--model", "m"], "first argument"),
        (["m", "--swap-space", "4"], "unrecognized arguments: --swap-space"),
        (["m", "--port", 8000], "8000 is no text"),
    ],
)
def test_a_wrong_argument_is_refused(args, words):
    with pytest.raises(BadArgs, match=words):
        check_serve_args(args)


def test_the_module_is_as_good_as_the_command():
    module = ["python3", "-m", "vllm.entrypoints.openai.api_server", "--port", "8000", "--model", "m", "--dtype=half"]
    assert serve_args(module) == ["m", "--port", "8000", "--dtype=half"]
    assert check_serve_args(serve_args(module)).model_tag == "m"
    with pytest.raises(BadArgs, match="neither"):
        serve_args(["bash", "-c", "vllm serve m"])


def test_the_image_is_the_installed_version():
    version = importlib.metadata.version("vllm").partition("+")[0]
    images = [server(path)["image"] for path in MANIFESTS] + [dockerfile(DEPLOY / "container" / "Dockerfile").baseimage]
    assert set(images) == {f"vllm/vllm-openai:v{version}"}


# Kubernetes.


@each_manifest
def test_manifests_are_valid_for_kubernetes(path):
    assert formats.yaml_text(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("good", "bad", "words"),
    [
        ("maxUnavailable: 1", "maxUnavailible: 1", "maxUnavailible"),
        ("replicas: 2", 'replicas: "2"', "2"),
        ("readOnlyRootFilesystem: true", "readOnlyRootFileSystem: true", "readOnlyRootFileSystem"),
        ("terminationGracePeriodSeconds: 90", "terminationGracePeriod: 90", "terminationGracePeriod"),
    ],
)
def test_a_misspelt_field_is_refused(good, bad, words):
    text = MANIFESTS[-1].read_text(encoding="utf-8")
    assert text.count(good) == 1
    assert any(words in reason for _, reason in formats.yaml_text(text.replace(good, bad)))


@each_manifest
def test_manifests_hang_together(path):
    labels = kind(path, "Deployment")["spec"]["template"]["metadata"]["labels"].items()
    container, ports = server(path), {port["name"] for port in server(path)["ports"]}
    for name in ("Deployment", "PodDisruptionBudget"):
        assert kind(path, name)["spec"]["selector"]["matchLabels"].items() <= labels
    assert kind(path, "Service")["spec"]["selector"].items() <= labels
    assert kind(path, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"].items() <= labels
    assert kind(path, "Service")["spec"]["ports"][0]["targetPort"] in ports
    assert kind(path, "PodDisruptionBudget")["spec"]["minAvailable"] < kind(path, "Deployment")["spec"]["replicas"]
    volumes = {volume["name"]: volume for volume in pod(path)["volumes"]}
    mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
    assert volumes.keys() == mounts.keys()
    claim = volumes["model"]["persistentVolumeClaim"]
    assert claim == {"claimName": kind(path, "PersistentVolumeClaim")["metadata"]["name"], "readOnly": True}
    assert mounts["model"]["readOnly"] and container["args"][0].startswith(mounts["model"]["mountPath"] + "/")
    assert mounts["shm"]["mountPath"] == "/dev/shm" and volumes["shm"]["emptyDir"]["medium"] == "Memory"
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"] == {"path": "/health", "port": "http"}


@each_manifest
def test_pods_run_with_the_least_rights(path):
    assert pod(path)["securityContext"]["runAsNonRoot"] and not pod(path)["automountServiceAccountToken"]
    rights = server(path)["securityContext"]
    assert rights == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not any("api-key" in arg for arg in server(path)["args"]), "a key on a command line is no secret"


@each_manifest
def test_a_pod_has_time_to_drain(path):
    parsed = check_serve_args(serve_args(server(path)["command"] + server(path)["args"]))
    before = server(path)["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod(path)["terminationGracePeriodSeconds"] >= before + parsed.shutdown_timeout + 10


def flat(value, at=""):
    if isinstance(value, dict):
        return {place: leaf for key, part in value.items() for place, leaf in flat(part, f"{at}/{key}").items()}
    if isinstance(value, list):
        return {place: leaf for i, part in enumerate(value) for place, leaf in flat(part, f"{at}/{i}").items()}
    return {at: value}


def test_the_t4_manifest_differs_only_where_it_must():
    a10g, t4 = (flat(documents(DEPLOY / "kubernetes" / name)) for name in ("vllm.yaml", "vllm-t4.yaml"))
    assert a10g.keys() == t4.keys()
    changed = {a10g[place]: t4[place] for place in a10g if a10g[place] != t4[place]}
    assert changed == {
        "vllm": "vllm-t4",
        "vllm-model": "vllm-t4-model",
        "qwen2.5-7b-instruct": "qwen2.5-1.5b-instruct",
        "20Gi": "5Gi",
        "NVIDIA-A10G": "Tesla-T4",
        "/models/Qwen2.5-7B-Instruct": "/models/Qwen2.5-1.5B-Instruct",
        "--served-model-name=Qwen2.5-7B-Instruct": "--served-model-name=Qwen2.5-1.5B-Instruct",
        "--dtype=bfloat16": "--dtype=half",
        "--max-num-seqs=64": "--max-num-seqs=128",
        "--max-num-queued-reqs=256": "--max-num-queued-reqs=512",
    }


# systemd.


needs_systemd = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")


def test_the_unit_is_well_formed(tmp_path):
    assert set(unit(UNIT)) == {"Unit", "Service", "Install"}
    for text, words in (("Restart=always\n", "no assignment in a section"), ("[Servce]\nUser=x\n", "unknown section")):
        bad = tmp_path / "bad.service"
        bad.write_text(text, encoding="utf-8")
        with pytest.raises(ValueError, match=words):
            unit(bad)


@needs_systemd
def test_systemd_takes_the_unit():
    assert formats.systemd_says(UNIT.read_text(encoding="utf-8")) == ""


@needs_systemd
@pytest.mark.parametrize(
    ("good", "bad", "words"),
    [
        ("TimeoutStopSec=90", "TimeoutStopSecs=90", "'TimeoutStopSecs'"),
        ("KillMode=mixed", "KillMode=gentle", "gentle"),
        ("TimeoutStartSec=900", "TimeoutStartSec=soon", "soon"),
    ],
)
def test_systemd_names_a_wrong_line(good, bad, words):
    text = UNIT.read_text(encoding="utf-8")
    assert text.count(good) == 1
    assert words in formats.systemd_says(text.replace(good, bad))


def test_the_unit_has_time_to_drain_and_few_rights():
    service = dict(unit(UNIT)["Service"])
    parsed = check_serve_args(serve_args(shlex.split(service["ExecStart"])))
    assert int(service["TimeoutStopSec"]) >= parsed.shutdown_timeout + 10
    assert service["KillSignal"] == "SIGTERM" and service["User"] not in ("", "root")
    assert service["NoNewPrivileges"] == "yes" and service["ProtectSystem"] == "strict"
    assert "PrivateDevices" not in service and "ProtectClock" not in service, "they hide the GPU"
    assert service["EnvironmentFile"] == "/etc/vllm/vllm.env"
    assert "VLLM_API_KEY" in (UNIT.parent / "vllm.env").read_text(encoding="utf-8")
    assert parsed.host == "127.0.0.1"


@needs_systemd
def test_systemd_counts_the_unit_as_confined(tmp_path):
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--no-pager", "--threshold=45", str(UNIT)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-400:] + done.stderr


# Containers.


@each_dockerfile
def test_dockerfiles_run_as_no_root_in_exec_form(path):
    instructions = [line["instruction"] for line in dockerfile(path).structure]
    assert instructions.count("ENTRYPOINT") == 1 and instructions.count("CMD") == 1
    assert last(path, "USER").split(":")[0] not in ("", "0", "root")
    assert json.loads(last(path, "ENTRYPOINT")) == ["vllm", "serve"]
    assert last(path, "STOPSIGNAL") == "SIGTERM"
    options, _, probe = last(path, "HEALTHCHECK").partition("CMD")
    assert "--start-period=" in options
    compile(json.loads(probe)[2], "HEALTHCHECK", "exec")
    from_tags = [line["value"] for line in dockerfile(path).structure if line["instruction"] == "FROM"]
    assert all(":" in value and ":latest" not in value for value in from_tags)


def test_the_cpu_image_copies_what_there_is():
    path = DEPLOY / "container" / "Dockerfile.cpu"
    root = DEPLOY.parent
    let_in = {
        line[1:] for line in Path(f"{path}.dockerignore").read_text(encoding="utf-8").splitlines() if line[0] == "!"
    }
    copied = set()
    for line in dockerfile(path).structure:
        if line["instruction"] == "COPY" and not line["value"].startswith("--from"):
            copied |= set(line["value"].split()[:-1])
    assert copied == let_in
    assert all((root / name).exists() for name in copied)
