#!/usr/bin/env bash
# A real S3 server for the tests, kept in ${XDG_CACHE_HOME:-~/.cache}/tallygrid: versitygw (Apache-2.0), by name through
# the Go module proxy; it serves a folder. Compiling takes a minute or two, once. Without Go the tests that need it are skipped.
set -euo pipefail

version=v1.8.0
folder="${XDG_CACHE_HOME:-$HOME/.cache}/tallygrid/versitygw"
server="$folder/versitygw-$version"
[ -x "$server" ] && exit 0
if ! command -v go >/dev/null; then
    echo "no Go here: the tests that need an S3 server are skipped" >&2
    exit 0
fi
mkdir -p "$folder"
exec 9>"$folder.lock"
flock 9
[ -x "$server" ] && exit 0
making="$(mktemp -d "$folder/making.XXXXXX")"
trap 'rm -rf "$making"' EXIT
GOBIN="$making" go install "github.com/versity/versitygw/cmd/versitygw@$version"
mv "$making/versitygw" "$server"
