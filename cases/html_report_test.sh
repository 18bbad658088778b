#!/usr/bin/env bash
# The HTML report of a run with a bug, a crash, a warning, a 4-bit file and pairs that pass: a page each for
# what did not just pass, complete in itself, and in headless Chromium without an error on the console.
set -euo pipefail

if [ $# -lt 1 ]; then
    echo "usage: cases/html_report_test.sh BUILD_DIR [KEEP_DIR]: KEEP_DIR keeps pages and screenshots" >&2
    exit 2
fi
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
bin=$(cd "$1" && pwd)/bin
keep=${2:-}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

fail() {
    echo "FAILED: $*" >&2
    [ ! -f "$work/log" ] || tail -n 30 "$work/log" >&2
    exit 1
}
says() { # FILE TEXT...: each is there
    local file=$1 text
    shift
    for text in "$@"; do
        grep -qF -- "$text" "$file" || fail "$file does not say: $text"
    done
}

# ---- a run
run='"--model", "{gguf}", "--tokens", "{tokens_file}", "--dump", "{dump}"'
entry() { # NAME ENGINE TYPE MORE
    echo "{\"name\": \"$1\", \"hf_model\": \"tiny/llama\", \"n_layers\": 4, \"engine\": \"$2\",
      \"engine_gguf\": \"$root/fixtures/tiny/llama/llama-$3.gguf\"$4,
      \"prompts\": [\"The quick brown fox jumps over the lazy dog.\"]}"
}
mkdir "$work/project"
cat >"$work/project/CMakeLists.txt" <<END
cmake_minimum_required(VERSION 3.25)
project(html C)
enable_testing()
add_subdirectory("$root" refparity EXCLUDE_FROM_ALL)
refparity_add_matrix("\${CMAKE_CURRENT_SOURCE_DIR}/matrix.json" PREFIX html/ STORE "$root/fixtures/store")
END
cat >"$work/project/matrix.json" <<END
{"engines": {
  "clean": {"argv": ["$bin/refparity-embedded", $run, "--slots", "operations"], "layout": "npy"},
  "bug": {"argv": ["$bin/refparity-embedded-bugs", $run, "--slots", "operations", "--bug", "rope-batched-only",
          "--layer", "2", "--mode", "batched"], "layout": "npy"},
  "loud": {"argv": ["$bin/refparity-embedded-bugs", $run, "--bug", "logits-factor", "--magnitude", "0.01"], "layout": "npy"},
  "crash": {"argv": ["sh", "-c", "\"\$@\"; echo '<script>alert(1)</script>' >&2; kill -SEGV \$\$", "sh",
            "$bin/refparity-embedded", $run], "layout": "npy"}},
 "tests": [$(entry ok clean bf16 ''), $(entry broken bug bf16 ', "replay": true'), $(entry loud loud bf16 ''),
           $(entry crashing 'crash' bf16 ''), $(entry small clean q4_0 ', "gate": "explained", "replay": true')]}
END
cmake -S "$work/project" -B "$work/build" -DCMAKE_BUILD_TYPE=Debug >"$work/log" 2>&1 || fail configure
cmake --build "$work/build" -j "$(nproc)" >"$work/log" 2>&1 || fail build
ctest --test-dir "$work/build" -j 2 >"$work/log" 2>&1 && fail "a bug and a crash pass"
reports=$work/build/reports/html_
says "$reports/index.html" '<a href="broken__p0.html">broken/p0</a>' '<a href="crashing__p0.html">' 'loud/p0' 'small/p0'
[ ! -e "$reports/ok__p0.html" ] || fail "a page of a pair that passes"
page=$reports/broken__p0.html
says "$page" 'First divergence' '<strong>h2</strong>' 'Operations that are wrong' 'h2_qrope' 'Positions and layers' \
    'Error of each layer' '<svg role="img"' 'ctest --test-dir' 'matrix.json:'
says "$reports/loud__p0.html" 'logits-size'
for page in "$reports"/*.html; do
    [ "$(wc -c <"$page")" -lt 1048576 ] || fail "$page has more than 1 MiB"
    ! grep -qE '<script|(src|href)="https?:' "$page" || fail "$page loads something, or runs a script"
done
grep -qF '"by_position"' "$reports/results.json" && fail "results.json has each position"

# ---- what passes now has no page
ctest --test-dir "$work/build" -j 2 -R "^html/ok/" >"$work/log" 2>&1 || fail "the clean entry"
[ ! -e "$reports/broken__p0.html" ] || fail "an old page is still there"
says "$reports/index.html" 'ok/p0'
ctest --test-dir "$work/build" -j 2 >"$work/log" 2>&1 && fail "a bug and a crash pass"

# ---- a dump without a matrix
pair=$work/build/refparity/html_/pairs/broken/p0
status=0
"$bin/refparity" replay --mode batched --html "$reports/replay.html" "$root/fixtures/tiny/llama/llama-bf16.gguf" "$pair/dump" >"$work/log" 2>&1 || status=$?
[ $status = 1 ] || fail "replay --html: exit code $status"
says "$reports/replay.html" 'Operations that are wrong' 'What each operation of h2 introduces' 'Positions and operations of h2'
status=0
"$bin/refparity" diff --html "$reports/diff.html" "$root"/fixtures/store/tiny--llama/main/float32/the-quick-brown-fox*.npz "$pair/dump" >"$work/log" 2>&1 || status=$?
[ $status = 1 ] || fail "diff --html: exit code $status"
says "$reports/diff.html" 'First divergence' 'Positions and layers'

# ---- in a browser
[ -z "$keep" ] || { mkdir -p "$keep" && cp "$reports"/*.html "$keep"; }
browser=$(command -v chromium || command -v chromium-browser || true)
if [ -z "$browser" ]; then
    echo "error: no chromium here: run ci/install.sh checks" >&2
    exit 2
fi
for page in "$reports"/*.html; do
    for width in 1280 400; do
        shot=$work/$(basename "$page" .html)-$width.png
        "$browser" --headless --no-sandbox --disable-gpu --hide-scrollbars --user-data-dir="$work/browser" \
            --window-size=$width,2400 --screenshot="$shot" --enable-logging=stderr "file://$page" >"$work/log" 2>&1 ||
            fail "chromium, $page"
        ! grep -F 'CONSOLE' "$work/log" || fail "$page: a message on the console"
        [ "$(wc -c <"$shot")" -gt 10000 ] || fail "$shot is empty"
        [ -z "$keep" ] || cp "$shot" "$keep"
    done
done
echo "the pages of $(find "$reports" -name '*.html' | wc -l) files are drawn at 1280 and 400 pixels, without a message on the console"
