"""Blocks that are right, one or more of each kind; a test makes each wrong in one place."""

DEPLOYMENT = """apiVersion: apps/v1
kind: Deployment
metadata: {name: vllm}
spec:
  replicas: 1
  selector: {matchLabels: {app: vllm}}
  template:
    metadata: {labels: {app: vllm}}
    spec:
      containers:
        - name: server
          image: vllm/vllm-openai:v0.32.0
          command: [vllm, serve, /models/m]
          args: [--dtype=half, --max-model-len=4096]
          resources: {limits: {nvidia.com/gpu: "1"}}
"""
MONITOR = """apiVersion: monitoring.coreos.com/v1
kind: ServiceMonitor
metadata: {name: vllm}
spec:
  selector: {matchLabels: {app: vllm}}
  endpoints: [{port: http, interval: 15s}]
"""
RULES = """groups:
  - name: vllm
    rules:
      - alert: Queue
        expr: vllm:num_requests_waiting > 5
        for: 1m
        labels: {severity: page}
"""
UNIT = (
    "[Unit]\nDescription=vLLM\n\n[Service]\nExecStart=/opt/vllm/bin/vllm serve /models/m --port 8000\nRestart=always\n"
)
IMAGE = (
    'FROM vllm/vllm-openai:v0.32.0\nRUN echo one && \\\n    echo two\nENTRYPOINT ["vllm", "serve"]\nCMD ["/models/m"]\n'
)
QDRANT = 'from qdrant_client import QdrantClient\n\nclient = QdrantClient(":memory:")\nclient.query_points("docs", query=[0.1])\n'
ARGS = DEPLOYMENT.replace("          command: [vllm, serve, /models/m]\n", "").replace(
    "[--dtype", "[/models/m, --dtype"
)
RUN = "sudo docker run -d --gpus all -p 8000:8000 --env A=b \\\n  vllm/vllm-openai:v0.32.0 \\\n  Qwen/Qwen2.5-1.5B-Instruct --max-model-len 4096"
COMPOSE = """services:
  vllm:
    image: vllm/vllm-openai:v0.32.0
    command: --model m --port ${PORT:-8000}
  other:
    image: registry.example/vllm/vllm-openai:latest
    entrypoint: [vllm, bench]
    command: [serve, --num-prompts, "10"]
""".replace("--model m", "m")
CHAT = """curl -sS http://127.0.0.1:8000/v1/chat/completions \\
  -H 'Content-Type: application/json' \\
  -d '{
    "model": "m",
    "messages": [{"role": "user", "content": "How are you?"}],
    "max_tokens": 16
  }' | jq .choices"""
HERE = """curl --json @- http://localhost:8000/v1/embeddings <<'EOF'
{
  "model": "m",
  "input": ["one", "two"]
}
EOF
curl -fsS localhost:8000/health && curl "$QDRANT/collections/docs" --json '{"vectors": {"size": 4}}'"""
ASK = """curl http://127.0.0.1:8080/ask --json '{"question": "Who may sign?"}'"""
CLUSTER = """helm upgrade --install stack prometheus-community/kube-prometheus-stack --namespace monitoring --wait
kubectl --namespace llm apply -f deploy/kubernetes/vllm.yaml
kubectl get pods -o wide | grep vllm"""
HPA = """apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: vllm}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: vllm}
  maxReplicas: 4
  metrics:
    - {type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 60}}}
"""
QUOTA = "apiVersion: v1\nkind: ResourceQuota\nmetadata: {name: q}\nspec:\n  hard: {requests.nvidia.com/gpu: 4, limits.memory: 8Gi}\n"
MAGIC = "import httpx\n\n\n%pip list\nrest = (\n    7\n    % 3\n)\nhttpx.get('http://127.0.0.1:8000/health', timeout=5)"
GOOD = {
    "vllm": ("bash", "export HF_HUB_OFFLINE=1\nvllm serve /models/m \\\n  --max-model-len 4096 | tee server.log"),
    "bench": ("console", "$ vllm bench serve --model m --num-prompts 10\nprinted words (\n$ make book"),
    "module": ("bash", "python -m vllm.entrypoints.openai.api_server --model m --port 8000"),
    "ours": ("bash", "llminfra notebooks 02 --force\nmake test\nkubectl apply -f deploy/kubernetes/vllm.yaml"),
    "qdrant": ("python", QDRANT),
    "httpx": ("python", "import httpx\n\nhttpx.get('http://127.0.0.1:8000/health', timeout=5)"),
    "magic": ("python", MAGIC),
    "manifest": ("yaml", DEPLOYMENT),
    "arguments of an image": ("yaml", ARGS),
    "docker": ("bash", RUN),
    "compose": ("yaml", COMPOSE),
    "chat": ("bash", CHAT),
    "here": ("bash", HERE),
    "ask": ("bash", ASK),
    "cluster": ("bash", CLUSTER),
    "autoscaler": ("yaml", HPA),
    "quota": ("yaml", QUOTA),
    "monitor": ("yaml", MONITOR),
    "rules": ("yaml", RULES),
    "promql": ("promql", "sum by (le) (rate(vllm:time_to_first_token_seconds_bucket[5m]))\n\nup == 0"),
    "unit": ("systemd", UNIT),
    "image": ("dockerfile", IMAGE),
    "json": ("json", '{"a": [1, 2]}'),
    "toml": ("toml", "[a]\nb = 1"),
    "plain yaml": ("yaml", "a: 1\nb: [2, 3]"),
}
