#!/usr/bin/env bash
# What Debian must provide before pip can do the rest. Installs it where it may (root), else says the one command to type.
# With the word `kafka`: also Java and Maven, which run and fetch Apache Kafka.
set -euo pipefail

needed=()
have_library() { ldconfig -p 2>/dev/null | grep -q "$1" || [ -e "/usr/lib/$(uname -m)-linux-gnu/$1" ]; }

have_library libpango-1.0.so.0 || needed+=(libpango-1.0-0)
have_library libpangoft2-1.0.so.0 || needed+=(libpangoft2-1.0-0)
have_library libharfbuzz-subset.so.0 || needed+=(libharfbuzz-subset0)
[ -e /usr/share/fonts/truetype/dejavu/DejaVuSans.ttf ] || needed+=(fonts-dejavu-core)
"${PYTHON:-python3}" -c 'import ensurepip, venv' 2>/dev/null || needed+=(python3-venv)
"${PYTHON:-python3}" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
  echo "Tallygrid needs Python 3.11 or newer; name one with: make PYTHON=/path/to/python3.11 …" >&2
  exit 1
}
if [ "${1:-}" = kafka ]; then
  command -v java >/dev/null || needed+=(openjdk-17-jre-headless)
  command -v mvn >/dev/null || needed+=(maven)
fi

[ ${#needed[@]} -eq 0 ] && exit 0
command="apt-get install --yes --no-install-recommends ${needed[*]}"
if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
  echo "installing from Debian: ${needed[*]}"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive $command -qq >/dev/null
else
  echo "These packages are missing. Type this once, as root, then try again:" >&2
  echo "  apt-get update && $command" >&2
  exit 1
fi
