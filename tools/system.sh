#!/usr/bin/env bash
# The system packages that the course needs, by their Debian names, and the one place that lists them.
# Installs what is missing where it may (root on Debian); elsewhere it stops with the line to run.
#   system.sh before   before the environment is made: Playwright's browser may still come with it
#   system.sh          what the tests need
#   system.sh lab      what the notebooks need
#   system.sh venv     what making an environment needs
set -euo pipefail
cd "$(dirname "$0")/.."

have() {
  case $1 in
    chromium) command -v chromium ;;                          # the browser that reads the built pages
    systemd) command -v systemd-analyze ;;                    # reads the unit files
    prometheus) command -v promtool ;;                        # promtool reads the alert rules that pages show
    libnuma1) PATH=$PATH:/sbin ldconfig -p | grep libnuma.so.1 ;;  # the engine's CPU kernels link to it
    python3-venv) false ;;                                    # asked for only where it is known to be missing
  esac >/dev/null 2>&1
}

needs="chromium systemd prometheus libnuma1"
[ "${1-}" = lab ] && needs=libnuma1
[ "${1-}" = venv ] && needs=python3-venv

missing=
for package in $needs; do
  have "$package" || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
  echo "Installing$missing ..."
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq >/dev/null
  # shellcheck disable=SC2086 # a list of words
  apt-get install -y -qq --no-install-recommends $missing >/dev/null
  exit 0
fi

# No right to install: for the browser alone, Playwright's own build will do.
if [ "$missing" = " chromium" ]; then
  [ "${1-}" = before ] && exit 0
  .venv/bin/playwright install chromium >/dev/null 2>&1 && exit 0
fi
echo "Missing:$missing. Run: sudo apt-get install -y$missing" >&2
exit 2
