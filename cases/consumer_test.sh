#!/usr/bin/env bash
# refparity inside another project: cases/consumer, from an install tree and from the source tree,
# with pass, fail and skip; dump.h in C99 and C++11; the pkg-config file.
set -euo pipefail

if [ $# -ne 1 ]; then
    echo "usage: cases/consumer_test.sh BUILD_DIR" >&2
    exit 2
fi
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
built=$(cd "$1" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unset REFPARITY_REQUIRE REFPARITY_REUSE_DUMPS
export REFPARITY_MODELS=$root/fixtures/tiny REFPARITY_STORE=$work/store

n_checks=0
fail() {
    echo "FAILED: $*" >&2
    [ ! -f "$work/out" ] || tail -n 40 "$work/out" >&2
    exit 1
}
expect() { # STATUS COMMAND...
    local want=$1 got=0
    shift
    "$@" >"$work/out" 2>&1 || got=$?
    n_checks=$((n_checks + 1))
    [ "$got" = "$want" ] || fail "exit code $got, expected $want: $*"
}
says() {
    n_checks=$((n_checks + 1))
    grep -Eq -- "$1" "$work/out" || fail "no line like: $1"
}

try_consumer() { # NAME CMAKE-ARGUMENT...
    local tree=$work/$1 tool
    shift
    expect 0 cmake -S "$root/cases/consumer" -B "$tree" -DSTORE="$root/fixtures/store" "$@"
    expect 0 cmake --build "$tree" -j "$(nproc)"
    expect 8 ctest --test-dir "$tree" --output-on-failure -L parity -j 2
    says 'parity/good/p0/h03 .*Passed'
    says 'parity/good/p1/logits .*Passed'
    says 'parity/bad/p0/emb .*Passed'
    says 'parity/bad/p0/h00 .*Failed'
    says 'slot: h0_postattn'
    says 'parity/absent/p0/h00 .*Skipped'
    says '100%|[0-9]+% tests passed'
    tool=$(find "$tree" "$work/install/bin" -name refparity -type f -perm -u+x 2>/dev/null | head -n 1)
    expect 1 "$tool" report "$tree"
    says 'compared 3 of 4 pairs: 2 passed, 1 failed, 0 errors, 1 skipped'
}

expect 0 cmake --install "$built" --prefix "$work/install"
try_consumer installed -DCMAKE_PREFIX_PATH="$work/install"
try_consumer fetched -DREFPARITY_SOURCE="$root"
# a fixture that nobody recorded: the command that does, for this very matrix
expect 0 cmake -DSTORE="$work/none" "$work/fetched"
expect 0 ctest --test-dir "$work/fetched" -R '^parity/good/p1/emb$'
expect 2 "$work/fetched/_deps/refparity-build/bin/refparity" report "$work/fetched"
says "good/p1: no fixture .*record it with \`$root/ci/record.sh --matrix $root/cases/consumer/matrix.json --filter good\`"

# the header alone, in the languages that it promises
for language in "cc -std=c99 -x c" "c++ -std=c++11 -x c++"; do
    # shellcheck disable=SC2086 # a command line
    expect 0 $language -Wall -Wextra -Wpedantic -Werror -DREFPARITY_DUMP_IMPLEMENTATION \
        -fsyntax-only "$work/install/include/refparity/dump.h"
done

# pkg-config
if command -v pkg-config >/dev/null; then
    cat >"$work/use.c" <<'END'
#include <refparity/compare.h>
#include <stdio.h>
int main(void) { return printf("%s\n", rp_verdict_name(RP_PASS)) < 0; }
END
    export PKG_CONFIG_PATH
    PKG_CONFIG_PATH=$(dirname "$(find "$work/install" -name refparity.pc)")
    # shellcheck disable=SC2046 # flags
    expect 0 cc "$work/use.c" -o "$work/use" $(pkg-config --define-variable=prefix="$work/install" --cflags --libs refparity)
    expect 0 "$work/use"
    says '^PASS$'
fi
# the recorder is there
expect 0 test -f "$work/install/share/refparity/recorder/hf_reference.py"
echo "$n_checks checks passed"
