#!/usr/bin/env bash
# Makes the Python environment of MLX-LM on the CPU, an engine of the matrix that nobody here wrote.
set -euo pipefail

usage() {
    cat <<'END'
usage: ci/get-mlx.sh [--find]

Installs MLX-LM and MLX for the CPU from fixtures/engines/mlx/requirements.txt into an environment of its own
below ${XDG_CACHE_HOME:-~/.cache}/refparity/mlx (350 MB, once), and prints its interpreter's path. The
matrix's engine "mlx" takes it from the environment:

  export REFPARITY_MLX_PYTHON=$(ci/get-mlx.sh)

  --find   only print the path when it is there; exit code 1 when it is not
  --help   this text

exit codes: 0 it is there, 1 --find found none, 2 it cannot be made
END
}

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
requirements=$root/fixtures/engines/mlx/requirements.txt
find_only=
case ${1:-} in
'') ;;
--find) find_only=1 ;;
-h | --help)
    usage
    exit 0
    ;;
*)
    echo "error: unknown argument '$1': see ci/get-mlx.sh --help" >&2
    exit 2
    ;;
esac
command -v python3 >/dev/null || {
    [ -z "$find_only" ] || exit 1
    echo "error: python3 is missing: run ci/install.sh record" >&2
    exit 2
}
key=$({
    cat "$requirements"
    python3 --version
} | sha256sum | cut -c1-12)
venv=${XDG_CACHE_HOME:-$HOME/.cache}/refparity/mlx/$key

make_environment() {
    echo "making the Python environment $venv (once) ..." >&2
    rm -rf "$venv" && python3 -m venv "$venv" >&2 &&
        "$venv/bin/python" -m pip install --quiet --quiet --disable-pip-version-check --no-input --require-hashes \
            --requirement "$requirements" >&2 && touch "$venv/complete"
}

if [ ! -f "$venv/complete" ]; then
    [ -z "$find_only" ] || exit 1
    mkdir -p "$(dirname "$venv")"
    (
        if command -v flock >/dev/null; then flock 9; fi # two at once must not make it twice
        [ -f "$venv/complete" ] || make_environment
    ) 9>"$venv.lock" || {
        echo "error: pip could not install $requirements: see its message above" >&2
        exit 2
    }
fi
printf '%s\n' "$venv/bin/python"
