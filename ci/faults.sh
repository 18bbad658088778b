#!/usr/bin/env bash
# Every row of docs/faults.md names the test that proves it, and that test is there and is run by ctest
# (unit/FOLDER/PROGRAM: FUNCTION), or is a section of a script (cases/NAME_test.sh: ITS HEADING).
# usage: ci/faults.sh [PAGE]; another page than docs/faults.md is for the test of this check.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
page=${1:-$root/docs/faults.md}
n_tests=0
n_wrong=0

wrong() { # LINE MESSAGE
    echo "$page:$1: error: $2"
    n_wrong=$((n_wrong + 1))
}

# is_there NAME DETAIL: a static function of a test program is run, else the compiler warns that it is unused;
# framework/CMakeLists.txt takes every *_test.c, cases/CMakeLists.txt names its own.
is_there() {
    local folder=${1#unit/} source
    case $1 in
    cases/*_test.sh)
        [ -f "$root/$1" ] && awk -v text="$2" '/^# ---- / && index($0, text) { found = 1 } END { exit !found }' "$root/$1"
        return
        ;;
    unit/cases/*)
        source=cases/${1##*/}.c
        grep -qF "refparity_add_case_test(${source#cases/}" "$root/cases/CMakeLists.txt" || return
        ;;
    unit/*/*_test) source=framework/$folder.c ;;
    *) return 1 ;;
    esac
    [ -f "$root/$source" ] && grep -qE "^static void $2\(void \*\*" "$root/$source"
}

while IFS=: read -r line row; do
    tests=$(awk -F '`' '{ for (i = 2; i <= NF; i += 2) if ($i ~ /^(unit|cases)\/.+: ./) print $i }' <<<"$row")
    [ -n "$tests" ] || {
        wrong "$line" "the row names no test, expected \`unit/FOLDER/PROGRAM: FUNCTION\`"
        continue
    }
    while read -r test; do
        n_tests=$((n_tests + 1))
        is_there "${test%%: *}" "${test#*: }" || wrong "$line" "there is no test '$test'"
    done <<<"$tests"
done < <(grep -nE '^\| ' "$page" | grep -vE '^[0-9]+:\| fault \|')

[ "$n_tests" -gt 0 ] || wrong 1 "no row names a test"
echo "$n_tests tests named, $n_wrong errors"
[ "$n_wrong" -eq 0 ]
