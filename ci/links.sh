#!/usr/bin/env bash
# Every page (*.md) names only files that are there: its relative links, with the heading behind a #, and the paths
# in `code` that begin with a folder of the source tree.
# usage: ci/links.sh [PAGE ...]; without, all pages that git knows. A page elsewhere is for the test of this check.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
pages=("$@")
[ $# -gt 0 ] || mapfile -t pages < <(git ls-files --cached --others --exclude-standard '*.md')
n_paths=0
n_wrong=0

wrong() { # PAGE LINE MESSAGE
    echo "$1:$2: error: $3"
    n_wrong=$((n_wrong + 1))
}

# The anchors of a page, as GitHub and GitLab make them of its headings.
anchors() {
    sed -n 's/^##* //p' "$1" | tr '[:upper:]' '[:lower:]' | sed 's/[^a-z0-9 _-]//g; s/ /-/g'
}

for page in "${pages[@]}"; do
    folder=$(dirname "$page")
    while IFS=: read -r line link; do
        n_paths=$((n_paths + 1))
        path=${link%%#*}
        target=$folder/$path
        [ -n "$path" ] || target=$page
        if [ ! -e "$target" ]; then
            wrong "$page" "$line" "the link $link leads to no file"
        elif [[ $link == *#* && $target == *.md ]] && ! anchors "$target" | grep -xF -- "${link#*#}" >/dev/null; then
            wrong "$page" "$line" "$target has no heading #${link#*#}"
        fi
    done < <(grep -noE '\]\([^) ]+\)' "$page" | grep -vE '\]\((https?:|mailto:)' | sed -E 's/\]\((.*)\)$/\1/')
    while IFS=: read -r line path; do
        n_paths=$((n_paths + 1))
        [ -e "$path" ] || wrong "$page" "$line" "there is no $path"
    done < <(grep -noE '(^|[`( ])(ci|docs|cases|fixtures|framework|matrix|ctest)/[A-Za-z0-9_./-]*[A-Za-z0-9_]' "$page" |
        sed -E 's/^([0-9]+):[`( ]?/\1:/' | grep -vE ':.*[[:space:]]')
done
[ "$n_paths" -gt 0 ] || wrong "${pages[0]}" 1 "no page has a link"
echo "${#pages[@]} pages, $n_paths paths, $n_wrong errors"
[ "$n_wrong" -eq 0 ]
