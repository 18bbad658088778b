#!/usr/bin/env bash
# The matrix, from nothing: installs what is missing, builds, runs, summarizes.
set -euo pipefail

usage() {
    cat <<'END'
usage: ci/parity.sh [FILTER] [ctest option ...]

Installs what is missing (with apt), configures and builds build/parity, runs the matrix with ctest
and prints a summary. FILTER is a regular expression on test names, such as qwen3, or
'tiny-llama-q8_0/batched'.

  REFPARITY_MODELS=DIR       where to look for GGUFs; default ~/.cache/refparity/models
  REFPARITY_STORE=DIR        where recorded fixtures are, beside fixtures/store
  REFPARITY_LLAMA_DIR=DIR    llama.cpp's build or install tree; default: what ci/get-llamacpp.sh has
                             built, if it has
  REFPARITY_REQUIRE=1        what is missing is an error, not a skip
  REFPARITY_REUSE_DUMPS=1    keep dumps whose inputs are the same
  REFPARITY_STRICT_WARNINGS=1  exit with 3 where all passes and there are warnings

exit codes: 0 pass, 1 an engine or a model file diverges, 2 environment, configuration or harness
error; also when nothing was compared, or the filter matches nothing; 3 warnings, where they count
END
}

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
build=$root/build/parity
filter=
case ${1:-} in
-h | --help)
    usage
    exit 0
    ;;
-* | '') ;;
*)
    filter=$1
    shift
    ;;
esac
fail() {
    echo "error: $*" >&2
    exit 2
}

# quiet LOG COMMAND...: shows the log only when the command fails.
quiet() {
    local log=$1
    shift
    "$@" >"$log" 2>&1 || {
        cat "$log" >&2
        fail "\`$*\` failed"
    }
}

"$root/ci/install.sh" build
mkdir -p "$build"
cd "$root"
# llama.cpp, where it is asked for or has been built before; it is never downloaded from here. What
# the build tree was configured with by hand stays.
configure=(cmake --preset parity)
configured=$(sed -n 's/^REFPARITY_LLAMA_DIR:[^=]*=//p' "$build/CMakeCache.txt" 2>/dev/null || true)
if [ -n "${REFPARITY_LLAMA_DIR:-}" ]; then
    configure+=("-DREFPARITY_LLAMA_DIR=$REFPARITY_LLAMA_DIR")
elif [ ! -d "$configured" ]; then
    configure+=("-DREFPARITY_LLAMA_DIR=$("$root/ci/get-llamacpp.sh" --find || true)")
fi
echo "configuring and building $build ..."
quiet "$build/configure.log" "${configure[@]}"
quiet "$build/build.log" cmake --build --preset parity

# The unit tests are ci/test.sh's business.
select=(--label-exclude '^unit$')
[ -z "$filter" ] || select+=(--tests-regex "$filter")
n_tests=$(ctest --test-dir "$build" --show-only "${select[@]}" | sed -n 's/^Total Tests: //p')
[ "${n_tests:-0}" -gt 0 ] || fail "no test of the matrix matches '$filter': see ctest --test-dir $build -N"

session=$(cat "$build/refparity/session" 2>/dev/null || true)
# Of 3,000 tests that pass or skip, only how far it is; the summary has the skipped ones.
show() {
    awk '
        /^ *[0-9]+\/[0-9]+ Test +#/ {
            n++
            if (/Passed|Skipped|Disabled/) { if (n % 500 == 0) { print n " tests ..."; fflush() } next }
        }
        /^ +Start +[0-9]+: / || /\((Skipped|Disabled)\)/ || /^The following tests did not run:/ { next }
        NF || !blank { print; fflush() }
        { blank = !NF }'
}
status=0
ctest --test-dir "$build" --parallel "$(nproc)" --output-on-failure --no-label-summary "${select[@]}" "$@" |
    show || status=$?
echo
[ "$(cat "$build/refparity/session" 2>/dev/null || true)" != "$session" ] || fail "ctest ran nothing"
report=0
"$build/bin/refparity" report "$build" || report=$?
# ctest may have failed where no pair did: then the harness is broken.
[ "$report" -ne 0 ] || [ "$status" -eq 0 ] || fail "ctest failed (exit code $status), although every pair passed"
exit "$report"
