#!/usr/bin/env bash
# Completion in each shell that is here: commands, options and files, as the program of PATH has them.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")"
n_checks=0
has() { # SHELL WHAT LINE EXPECTED...
    local shell=$1 line=$2 found=$3 word
    shift 3
    for word in "$@"; do
        n_checks=$((n_checks + 1))
        grep -Eq -- "(^|[[:space:]])$word([[:space:]]|\$)" <<<"$found" || {
            printf 'FAILED: %s: "%s" does not offer %s but: %s\n' "$shell" "$line" "$word" "$found" >&2
            exit 1
        }
    done
}

# Each command and each option that the program says it has is offered.
commands=$(refparity --help | sed -n 's/^  \([a-z][a-z-]*\)  .*/\1/p')
[ -n "$commands" ] || exit 1
in_bash() { # the words of the line; the last may be ""
    bash -c 'source ./refparity.bash; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _refparity; printf "%s\n" "${COMPREPLY[@]}"' bash "$@"
}
# shellcheck disable=SC2086 # a word each
has bash "refparity " "$(in_bash refparity "")" $commands --help --version
for command in $commands; do
    # shellcheck disable=SC2046 # a word each
    has bash "refparity $command --" "$(in_bash refparity "$command" --)" \
        $(refparity "$command" --help | grep -oE '^  --[a-z0-9-]+')
done
has bash "refparity show refp" "$(in_bash refparity show refp)" refparity.bash refparity.fish
[ -z "$(in_bash refparity no-such-command --)" ] || exit 1

if command -v fish >/dev/null; then
    in_fish() { fish --no-config -c "source ./refparity.fish; complete -C '$1'"; }
    # shellcheck disable=SC2086 # a word each
    has fish "refparity " "$(in_fish "refparity ")" $commands
    for command in $commands; do
        # shellcheck disable=SC2046 # a word each
        has fish "refparity $command --" "$(in_fish "refparity $command --")" \
            $(refparity "$command" --help | grep -oE '^  --[a-z0-9-]+')
    done
    has fish "refparity show refp" "$(in_fish "refparity show refp")" refparity.bash refparity.fish
fi

if ! script -qec true /dev/null </dev/null >/dev/null 2>&1; then
    echo "skipped: zsh's completion: this machine has no pseudo terminals, or no script(1)"
elif command -v zsh >/dev/null; then
    # a terminal of zsh's own, since completion works in interactive shells alone
    # shellcheck disable=SC2016 # for the shell inside
    zsh_says=$(timeout 30 zsh -f -c '
        zmodload zsh/zpty && zpty shell zsh -f -i
        zpty -w shell "PS1=; fpath=($PWD \$fpath); autoload -Uz compinit; compinit -u -D; print rea\"\"dy"
        zpty -r -m shell line "*ready*"
        zpty -n -w shell $'\''refparity re\t'\''
        zpty -r -m shell line "*report *"; print -r -- $line
        zpty -n -w shell $'\''\x15refparity replay --\t'\''
        zpty -r -m shell line "*--verbose *"; print -r -- $line' | tr -d '\r') || true
    has zsh "refparity re" "$zsh_says" "record" "replay" "report"
    has zsh "refparity replay --" "$zsh_says" "--layers" "--layout" "--verbose"
fi
echo "$n_checks checks passed"
