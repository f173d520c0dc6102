#!/usr/bin/env bash
# Run the tests in two lanes side by side: all that starts an engine is one group, so it stays on one worker.
set -euo pipefail
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS=1
exec .venv/bin/python -m pytest -n 2 --dist loadgroup "$@"
