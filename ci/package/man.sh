#!/usr/bin/env bash
# Writes refparity.1 and a page for each command, refparity-COMMAND.1, from what the program itself says
# with --help. cmake runs it where help2man is there.
set -euo pipefail

usage() {
    cat <<'END'
usage: ci/package/man.sh PROGRAM FOLDER

  PROGRAM   the program refparity
  FOLDER    where the pages go

exit codes: 0 all pages are written, 2 not
END
}

[ "${1:-}" != --help ] || { usage; exit 0; }
[ $# -eq 2 ] || { usage >&2; exit 2; }
program=$1
folder=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# What help2man knows as a synopsis and as headings: "Usage:", "or:", "*Heading*".
as_help2man_reads_it() {
    awk '
        /^usage: /      { sub(/^usage:/, "Usage:"); print; in_usage = 1; next }
        in_usage && /^ +refparity / { sub(/^ +/, "   or: "); print; next }
                        { in_usage = 0 }
        /^exit codes: / { sub(/^exit codes: /, ""); print "\n*Exit status*\n" $0; next }
        /^[A-Z][^.]*:$/ { print "\n" $0; next }
                        { print }'
}

page() { # NAME SUMMARY SEE-ALSO [COMMAND]
    local name=$1 summary=$2 see_also=$3
    shift 3
    "$program" "$@" --help >"$work/help" || return 1
    [ -s "$work/help" ] || { echo "error: $program $* --help prints nothing" >&2; return 1; }
    as_help2man_reads_it <"$work/help" >"$work/$name.help"
    printf '#!/bin/sh\ncat "%s"\n' "$work/$name.help" >"$work/$name"
    chmod +x "$work/$name"
    printf '[SEE ALSO]\n%s\n' "$see_also" >"$work/include"
    help2man --no-info --section=1 --version-string="$version" --source="refparity $version" \
        --manual="User Commands" --name="$summary" --include="$work/include" "$work/$name" |
        sed "/^\.TH/s/\"[A-Z][a-z]* 20[0-9][0-9]\"/\"$day\"/" >"$work/$name.1"
    mv "$work/$name.1" "$folder/$name.1"
}

day=$(date -u -d "@${SOURCE_DATE_EPOCH:-$(date +%s)}" +%F) # one that all readers of pages can parse
version=$("$program" --version | cut -d' ' -f2)
mkdir -p "$folder"
"$program" --help | sed -n 's/^  \([a-z][a-z-]*\)  *\([^ ].*\)$/\1\t\2/p' >"$work/commands"
[ -s "$work/commands" ] || { echo "error: $program --help lists no commands" >&2; exit 2; }

others=
while IFS=$'\t' read -r command summary; do
    others+=${others:+,$'\n'}".BR refparity-$command (1)"
    page "refparity-$command" "$summary" ".BR refparity (1)" "$command" || exit 2
done <"$work/commands"
page refparity "compare an LLM inference engine with Hugging Face transformers, layer by layer" \
    "$others" || exit 2
