#!/usr/bin/env bash
# Makes requirements.txt of fixtures/, fixtures/engines/mlx/, ci/ and ci/package/ from their .in: every package that pip installs, with
# the hashes of all its files in pip's index, so that pip refuses a file that was exchanged. Run it after a
# change of a .in; what is pinned already stays at its version. usage: ci/lock.sh [--upgrade]
set -euo pipefail

case ${1:-} in
'' | --upgrade) ;;
*)
    echo "usage: ci/lock.sh [--upgrade]" >&2
    exit 2
    ;;
esac

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q pip-tools==7.6.2
for folder in fixtures fixtures/engines/mlx ci ci/package; do
    (
        cd "$root/$folder"
        cp requirements.txt "$work/locked"
        "$work/venv/bin/pip-compile" --quiet --generate-hashes --allow-unsafe --strip-extras --no-header \
            --no-annotate --no-emit-index-url --no-emit-find-links --no-emit-trusted-host "$@" \
            --output-file "$work/locked" requirements.in
        {
            echo "# Made by ci/lock.sh from requirements.in: all that pip installs, with the hashes of its files."
            grep -v '^#' "$work/locked"
        } >"$work/requirements.txt"
        mv "$work/requirements.txt" requirements.txt
    )
done
