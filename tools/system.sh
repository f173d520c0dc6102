#!/usr/bin/env bash
# The system packages that the course needs, and the one place that lists them.
# Installs what is missing where it may (root on Debian); elsewhere it stops with the line to run.
#   system.sh        what the tests need
#   system.sh venv   what making an environment needs
set -euo pipefail
cd "$(dirname "$0")/.."

# command or file that shows it is there : Debian package
needs=(
  "chromium:chromium"            # the browser that reads the built pages
  "systemd-analyze:systemd"      # reads the unit files
  "/usr/lib/$(uname -m)-linux-gnu/libnuma.so.1:libnuma1"  # the engine's CPU kernels link to it
)
[ "${1-}" = venv ] && needs=("no-ensurepip:python3-venv")

missing=()
for need in "${needs[@]}"; do
  command -v "${need%%:*}" >/dev/null || [ -e "${need%%:*}" ] || missing+=("${need##*:}")
done
[ ${#missing[@]} -gt 0 ] || exit 0

if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
  echo "Installing ${missing[*]} ..."
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq >/dev/null
  apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
  exit 0
fi
# No right to install: for the browser, Playwright's own build will do.
if [ "${missing[*]}" = chromium ] && [ -x .venv/bin/playwright ]; then
  .venv/bin/playwright install chromium >/dev/null 2>&1 && exit 0
fi
echo "Missing: ${missing[*]}. Run: sudo apt-get install -y ${missing[*]}" >&2
exit 2
