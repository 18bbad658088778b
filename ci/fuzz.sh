#!/usr/bin/env bash
# Runs one libFuzzer target for some seconds, from its committed seeds; new inputs stay in build/.
set -euo pipefail
if [ $# -ne 2 ]; then
    echo "usage: ci/fuzz.sh build/fuzz/framework/NAME_fuzz SECONDS" >&2
    exit 2
fi
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
name=$(basename "$1" _fuzz)
found=$root/build/fuzz/found/$name
mkdir -p "$found"
seeds=()
for folder in "$root"/framework/*/corpus/"$name"; do
    [ -d "$folder" ] && seeds+=("$folder")
done
if [ ${#seeds[@]} -eq 0 ]; then
    echo "error: no seeds for $name in framework/*/corpus/$name" >&2
    exit 2
fi
# 256 MiB and 5 s an input: an unlimited allocation and a hang are bugs.
"$1" -max_total_time="$2" -timeout=5 -rss_limit_mb=1024 -malloc_limit_mb=256 -max_len=65536 \
    -artifact_prefix="$found/crash-" -print_final_stats=1 "$found" "${seeds[@]}" 2>&1 | tail -n 12
exit "${PIPESTATUS[0]}"
