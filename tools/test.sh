#!/usr/bin/env bash
# Set up what the suite needs, and run it. PROCESSOR=avx2 masks the processor, FRESH=1 lets nothing in the ledger stand.
set -euo pipefail
cd "$(dirname "$0")/.."
LLMINFRA_BEGAN=$(date +%s)
export LLMINFRA_BEGAN
[ -z "${FRESH-}" ] || export LLMINFRA_FRESH=1
tools/system.sh before
make --no-print-directory environments
tools/system.sh
cd tools  # where the suite is found, and not by what it starts
exec ../.venv/bin/python -m suite
