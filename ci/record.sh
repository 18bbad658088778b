#!/usr/bin/env bash
# Records the matrix's fixtures with Hugging Face transformers, in a Python environment of its own.
# Not needed to run the matrix: the fixtures of the tiny models are in the repository.
set -euo pipefail

usage() {
    cat <<'END'
usage: ci/record.sh [FILTER] [--matrix FILE] [--check] [OPTION...]
       ci/record.sh --model NAME --prompt TEXT [--slots operations] [--dtype TYPE] [--out FILE.npz] [OPTION...]
       ci/record.sh [FILTER] --build DIR [--force]
       ci/record.sh --replay DUMP --model NAME [--gguf FILE] [--activations by_weight] [OPTION...]

Records the fixture of every pair of matrix/matrix.json whose <entry>/<prompt> contains FILTER
(default: all); what is valid already is kept. Models that are not in the repository come from the
Hugging Face hub; those that cannot be had are reported as skipped. Beside their fixtures goes a sketch
of the checkpoint, by which <entry>/weights is tested where the checkpoint is not at hand.

  --matrix FILE   the pairs of this matrix, your engine's, in the place of matrix/matrix.json
  --check         write nothing: record the stored fixtures again in memory, and exit 1 where a slot
                  differs by more than 1e-5 relative at any position
  --force         record again what is valid
  --model NAME    one prompt of this model instead of the matrix: NAME is a folder below fixtures/ or
                  --checkpoints DIR (tiny/qwen3), else a hub id; --prompt TEXT or --prompt-file FILE
  --slots LEVEL   with --model: layers, or operations: what every operation reads and writes
  --dtype TYPE    with --model: float32, bfloat16 or float16
  --out FILE.npz  with --model: not into the store but here
  --streamed      for models that do not fit into memory: one layer's weights at a time, the same values
  --build DIR     not HF's fixtures, but those of entries that name an engine as their reference: runs
                  `refparity record` of the build tree DIR, where the engines are; needs no Python
  --replay DUMP   with --model: what refparity replay does, of any architecture that transformers has: each
                  slot of an engine's dump is computed by HF's own modules from the dump's own inputs, on the
                  weights of --gguf FILE or of the checkpoint; ci/record.sh --replay --help has its options
  --test          run the recorder's own unit tests instead
  --print-python  make the environment and print its interpreter's path instead
  --help          this text

Other options (--store DIR, --checkpoints DIR, --gguf FILE) go to fixtures/hf_reference.py.

The environment is made once from fixtures/requirements.txt, below
${XDG_CACHE_HOME:-$HOME/.cache}/refparity/venv. pip's own settings apply: to get torch without CUDA,
set PIP_EXTRA_INDEX_URL to an index of CPU wheels. REFPARITY_PYTHON=/path/to/python uses that
interpreter as it is instead.

Exit codes: 0 all well, 1 --check, --test or --replay found something wrong, 2 wrong usage or environment.
END
}

say() { printf '%s\n' "$*" >&2; }
fail() {
    say "error: $*"
    exit 2
}

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
requirements=$root/fixtures/requirements.txt
torch=$root/fixtures/requirements-torch.txt

filter=
mode=record
build=
matrix=
options=()
take_filter() {
    [ -z "$filter" ] || fail "one filter at most, got '$filter' and '$1': see ci/record.sh --help"
    filter=$1
}
case " $* " in *" --replay "* | *" --replay="*)
    mode=replay
    options=("$@")
    case " $* " in *" --help "* | *" -h "*) options=(--help) ;; esac
    set --
    ;;
esac
while [ $# -gt 0 ]; do
    case $1 in
    -h | --help)
        usage
        exit 0
        ;;
    --test) mode=unit-tests ;;
    --print-python) mode=print ;;
    --build)
        [ $# -ge 2 ] || fail "--build needs a folder: see ci/record.sh --help"
        build=$2
        shift
        ;;
    --matrix | --filter)
        [ $# -ge 2 ] || fail "$1 needs a value: see ci/record.sh --help"
        if [ "$1" = --filter ]; then take_filter "$2"; else matrix=$2; fi
        shift
        ;;
    --store | --checkpoints | --model | --prompt | --prompt-file | --slots | --dtype | --out | --revision | --gguf)
        [ $# -ge 2 ] || fail "$1 needs a value: see ci/record.sh --help"
        [ "$1" != --model ] || mode=one
        options+=("$1" "$2")
        shift
        ;;
    -*) options+=("$1") ;;
    *) take_filter "$1" ;;
    esac
    shift
done

# Debian splits venv and ensurepip off: their absence shows only when they are used.
python_is_enough() {
    python3 -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

require_python() {
    python_is_enough && return
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        say "installing python3 and python3-venv ..."
        export DEBIAN_FRONTEND=noninteractive
        if apt-get -qq update >&2 && apt-get -qq install -y python3 python3-venv >&2; then
            python_is_enough && return
        fi
    fi
    fail "Python 3.11 or newer with venv is needed: install python3 and python3-venv, or set REFPARITY_PYTHON"
}

# Makes the environment $1. Each step is chained: `set -e` does not hold in a condition.
make_environment() {
    local venv=$1
    local pip=("$venv/bin/python" -m pip install --quiet --quiet --disable-pip-version-check --no-input)
    say "making the Python environment $venv (once; torch is large) ..."
    # torch by itself: pip takes the build that its settings prefer, whatever its hash
    rm -rf "$venv" &&
        python3 -m venv "$venv" >&2 &&
        "${pip[@]}" --require-hashes --requirement "$requirements" >&2 &&
        "${pip[@]}" --requirement "$torch" >&2 &&
        touch "$venv/complete"
}

# Prints the interpreter of the environment for exactly these requirements, making it when it is missing.
environment_python() {
    if [ -n "${REFPARITY_PYTHON:-}" ]; then
        command -v "$REFPARITY_PYTHON" || fail "REFPARITY_PYTHON=$REFPARITY_PYTHON is not a program"
        return
    fi
    require_python
    local key venv
    key=$({
        cat "$requirements" "$torch"
        python3 --version
    } | sha256sum | cut -c1-12)
    venv=${XDG_CACHE_HOME:-$HOME/.cache}/refparity/venv/$key
    mkdir -p "$(dirname "$venv")"
    (
        # two recordings at once must not make it twice
        if command -v flock >/dev/null; then flock 9; fi
        [ -f "$venv/complete" ] || make_environment "$venv"
    ) 9>"$venv.lock" || fail "pip could not install fixtures/requirements.txt: see its message above"
    printf '%s\n' "$venv/bin/python"
}

if [ -n "$build" ]; then
    [ "$mode$matrix" = record ] || fail "--build goes with the tree's own matrix alone: see ci/record.sh --help"
    # a tree has one of these files, or both: sed's complaint of the other is no error
    tool=$(sed -n 's/^  "tool": "\(.*\)",$/\1/p' "$build"/refparity/config.json "$build"/refparity/*/config.json 2>/dev/null | head -n 1) || true
    [ -x "$tool" ] || fail "$build is no build tree with refparity in it: configure and build it first"
    exec "$tool" record ${options[@]+"${options[@]}"} "$build" "$filter"
fi

python=$(environment_python)
case $mode in
print) printf '%s\n' "$python" ;;
replay) exec "$python" "$root/fixtures/hf_replay.py" "${options[@]}" ;;
unit-tests)
    # -B: no bytecode beside the sources
    for folder in fixtures fixtures/engines; do
        "$python" -B -m unittest discover --start-directory "$root/$folder" --pattern "*_test.py" \
            ${options[@]+"${options[@]}"} || exit 1
    done
    ;;
one)
    [ -z "$filter$matrix" ] || fail "'$filter$matrix' is of a matrix, and --model takes one model alone: give one of them"
    exec "$python" "$root/fixtures/hf_reference.py" "${options[@]}"
    ;;
record)
    matrix=${matrix:-$root/matrix/matrix.json}
    [ -f "$matrix" ] || fail "$matrix is missing"
    exec "$python" "$root/fixtures/hf_reference.py" --matrix "$matrix" --filter "$filter" ${options[@]+"${options[@]}"}
    ;;
esac
