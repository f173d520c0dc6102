#!/usr/bin/env bash
# Make an environment from its lock: `environment.sh site` (.venv-site) or `environment.sh full` (.venv).
set -euo pipefail
cd "$(dirname "$0")/.."

stop() { echo "$1" >&2; exit 2; }

kind=$1
case $kind in
  site) folder=.venv-site; versions="3.11 3.12 3.13" ;;
  full) folder=.venv; versions="3.11" ;;
  *) stop "usage: tools/environment.sh site|full" ;;
esac

system=$(uname -s)
[ "$system" = Linux ] || [ "$system" = Darwin ] ||
  stop "$system: read the course online or in a Linux container; make book needs Linux or macOS, make test needs Linux."
if [ "$kind" = full ]; then
  case "$system-$(uname -m)" in
    Linux-x86_64 | Linux-aarch64) ;;
    *) stop "$system $(uname -m): make book and make serve work here; make test and the labs need Linux, since the engine's CPU build has no other wheels." ;;
  esac
fi

python=
for version in $versions; do
  for candidate in "python$version" python3; do
    if [ "$("$candidate" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)" = "$version" ]; then
      python=$candidate
      break 2
    fi
  done
done
[ -n "$python" ] || stop "No Python $(echo $versions | sed 's/ / or /g') found (python3 is $(python3 --version 2>&1 || echo missing)): install one; 3.11 to 3.13 build the site, 3.11 runs the labs and tests."
"$python" -c 'import ensurepip' 2>/dev/null || tools/system.sh venv

rm -rf "$folder"
echo "Making $folder with $("$python" --version) ..."
"$python" -m venv "$folder"
# Twice quiet: only errors; a machine's own sources may warn once for every package.
pip="$folder/bin/python -m pip --disable-pip-version-check --quiet --quiet install --no-deps"

if [ "$kind" = site ]; then
  $pip --require-hashes -r requirements-site.txt
else
  # The CPU build of torch is on no common index: pip's configured sources first, then PyTorch's own index.
  $pip -r requirements-torch.txt 2>/dev/null ||
    $pip -r requirements-torch.txt --index-url https://download.pytorch.org/whl/cpu ||
    stop "The CPU build of torch ($(cat requirements-torch.txt)) was found neither by pip's configured sources nor at PyTorch's index."
  $pip --require-hashes -r requirements.txt
  $pip --no-build-isolation ./tools/vllm-alias
fi
touch "$folder/.locked"
