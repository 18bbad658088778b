#!/usr/bin/env bash
# What users of ctest do, in a configured and built tree: filters, labels, reruns, skips, a failing
# engine, stop on failure, REQUIRE, REUSE. A small project of its own, so that engines may misbehave.
set -euo pipefail

if [ $# -ne 1 ]; then
    echo "usage: cases/ctest_scheme_test.sh BUILD_DIR" >&2
    exit 2
fi
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
built=$(cd "$1" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unset REFPARITY_REQUIRE REFPARITY_REUSE_DUMPS REFPARITY_MODELS
export REFPARITY_STORE=$work/store

n_checks=0
fail() {
    echo "FAILED: $*" >&2
    [ ! -f "$work/out" ] || tail -n 40 "$work/out" >&2
    exit 1
}
# expect STATUS COMMAND...: runs it, its output in $work/out.
expect() {
    local want=$1 got=0
    shift
    "$@" >"$work/out" 2>&1 || got=$?
    n_checks=$((n_checks + 1))
    [ "$got" = "$want" ] || fail "exit code $got, expected $want: $*"
}
# says PATTERN: the last output has a line like that.
says() {
    n_checks=$((n_checks + 1))
    grep -Eq -- "$1" "$work/out" || fail "no line like: $1"
}
says_not() {
    n_checks=$((n_checks + 1))
    ! grep -Eq -- "$1" "$work/out" || fail "a line like: $1"
}

# ---- the project: a clean engine, one with a bug in layer 2, one that crashes, one that is missing
mkdir "$work/project"
cat >"$work/project/CMakeLists.txt" <<END
cmake_minimum_required(VERSION 3.25)
project(scheme C)
enable_testing()
set(REFPARITY_TESTS ON CACHE BOOL "" FORCE)
add_subdirectory("$root" refparity EXCLUDE_FROM_ALL)
refparity_add_matrix("\${CMAKE_CURRENT_SOURCE_DIR}/matrix.json" PREFIX scheme/
  STORE "$root/fixtures/store" LABELS scheme)
refparity_add_matrix("\${CMAKE_CURRENT_SOURCE_DIR}/modes.json" PREFIX two/)
refparity_add_matrix("\${CMAKE_CURRENT_SOURCE_DIR}/weights.json" PREFIX file/)
refparity_add_matrix("\${CMAKE_CURRENT_SOURCE_DIR}/loud.json" PREFIX loud/ STORE "$root/fixtures/store")
refparity_add_matrix("\${CMAKE_CURRENT_SOURCE_DIR}/known.json" PREFIX known/ STORE "$root/fixtures/store")
refparity_add_matrix("\${CMAKE_CURRENT_SOURCE_DIR}/refer.json" PREFIX refer/)
refparity_add_matrix("\${CMAKE_CURRENT_SOURCE_DIR}/split.json" PREFIX split/ STORE "$root/fixtures/store")
END
run='"--model", "{gguf}", "--tokens", "{tokens_file}", "--dump", "{dump}"'
entry() { # NAME ENGINE
    echo "{\"name\": \"$1\", \"hf_model\": \"tiny/qwen3\", \"n_layers\": 4, \"engine\": \"$2\",
      \"engine_gguf\": \"$root/fixtures/tiny/qwen3/qwen3-bf16.gguf\",
      \"prompts\": [\"The quick brown fox jumps over the lazy dog.\", \"Hello\"]}"
}
cat >"$work/project/matrix.json" <<END
{"engines": {
  "clean": {"argv": ["{target:refparity-embedded}", $run], "layout": "npy", "serial": true},
  "bug": {"argv": ["{target:refparity-embedded-bugs}", $run, "--bug", "ffn-half", "--layer", "2"], "layout": "npy"},
  "crash": {"argv": ["sh", "-c", "echo 'refparity: SKIP: fake'; \"\$@\"; kill -SEGV \$\$", "sh\\nrefparity: SKIP: an argument",
            "{target:refparity-embedded}", $run], "layout": "npy", "timeout_s": 30, "processors": 2},
  "missing": {"argv": ["{env:REFPARITY_SCHEME_ENGINE}", "{tokens_file}", "{dump}"], "layout": "npy"}},
 "tests": [$(entry ok clean), $(entry broken bug), $(entry crashing crash), $(entry absent missing)]}
END
# two modes, and no fixture anywhere; the entries name no engine, there is only one
modes='"modes": ["per-token", "batched:32"], "compare_modes": [["batched:32", "per-token"]]'
cat >"$work/project/modes.json" <<END
{"engines": {
  "by-ids": {"argv": ["sh", "-c", "\$0 --bug rope-batched-only --layer 1 \"\$@\"", "{target:refparity-embedded-bugs}",
             "--model", "{gguf}", "--ids", "457,220,398,291,74,281,81", "--mode", "{mode}", "--dump", "{dump}"],
             "layout": "npy"}},
 "tests": [{"name": "modal", "hf_model": "nobody/has-it", "n_layers": 4, $modes,
            "engine_gguf": "$root/fixtures/tiny/qwen3/qwen3-bf16.gguf", "prompts": ["The quick"]}]}
END
# a right GGUF, and one whose converter forgot rope_theta, away from their checkpoint
mkdir "$work/models"
cp "$root/fixtures/tiny/qwen3/qwen3-q8_0.gguf" "$work/models/right.gguf"
sed 's/qwen3.rope.freq_base/qwen3.rope.fr3q_base/' "$work/models/right.gguf" >"$work/models/wrong.gguf"
file() { # NAME
    echo "{\"name\": \"$1\", \"hf_model\": \"tiny/qwen3\", \"n_layers\": 4,
      \"engine_gguf\": \"$work/models/$1.gguf\", \"prompts\": [\"Hello\"]}"
}
cat >"$work/project/weights.json" <<END
{"engines": {"none": {"argv": ["false", "{dump}"], "layout": "npy"}}, "tests": [$(file right), $(file wrong), $(file gone)]}
END
# an engine whose logits have the right direction and the wrong size
cat >"$work/project/loud.json" <<END
{"engines": {"loud": {"argv": ["{target:refparity-embedded-bugs}", $run, "--bug", "logits-factor", "--magnitude", "0.01"],
  "layout": "npy"}}, "tests": [$(entry loud loud)]}
END
# an engine whose bug is known; another run may have another bug, or none
cat >"$work/project/known.json" <<END
{"engines": {"old": {"argv": ["sh", "-c", "\"\$@\" \$(cat $work/bug)", "sh", "{target:refparity-embedded-bugs}", $run, "--slots", "{slots}"],
  "layout": "npy"}},
 "tests": [{"name": "old", "hf_model": "tiny/qwen3", "n_layers": 4,
  "engine_gguf": "$root/fixtures/tiny/qwen3/qwen3-bf16.gguf", "replay": true, "prompts": ["Hello"],
  "known": [
    {"slot": "h*_ffnout", "name": "constant-factor", "reason": "it halves one FFN", "issue": "#7"}]}]}
END
# llama.cpp in HF's place, on F32 weights; the C model is judged, right and with a bug
llamacpp=$built/bin/refparity-llamacpp
referring() { # NAME ENGINE
    echo "{\"name\": \"$1\", \"hf_model\": \"nobody/has-it\", \"n_layers\": 4, \"engine\": \"$2\",
      \"engine_gguf\": \"$root/fixtures/tiny/qwen3/qwen3-bf16.gguf\", \"prompts\": [\"Hello\"],
      \"reference\": {\"engine\": \"llama.cpp\", \"gguf\": \"$work/models/f32.gguf\", \"mode\": \"batched\"}}"
}
cat >"$work/project/refer.json" <<END
{"engines": {
  "clean": {"argv": ["{target:refparity-embedded}", $run], "layout": "npy"},
  "bug": {"argv": ["{target:refparity-embedded-bugs}", $run, "--bug", "ffn-half", "--layer", "2"], "layout": "npy"},
  "llama.cpp": {"argv": ["$llamacpp", "--model", "{gguf}", "--prompt-file", "{prompt_file}", "--dump", "{dump}",
                "--mode", "{mode}", "--slots", "{slots}"], "layout": "npy", "how_to_get": "run ci/get-llamacpp.sh"}},
 "tests": [$(referring right clean), $(referring wrong bug)]}
END
# a model in three files: the matrix names the first
python=$("$root/ci/record.sh" --print-python)
"$python" - "$root/fixtures" "$root/fixtures/tiny/qwen3/qwen3-q8_0.gguf" "$work/models/split.gguf" <<'END'
import pathlib, sys
sys.dont_write_bytecode = True
sys.path.insert(0, sys.argv[1])
import gguf, gguf_copy
gguf_copy.split_gguf(gguf.GGUFReader(sys.argv[2]), pathlib.Path(sys.argv[3]), 16)
END
cat >"$work/project/split.json" <<END
{"engines": {"clean": {"argv": ["{target:refparity-embedded}", $run], "layout": "npy"}},
 "tests": [{"name": "shards", "hf_model": "tiny/qwen3", "n_layers": 4, "gate": "explained", "replay": true,
            "engine_gguf": "$work/models/split-00001-of-00003.gguf", "prompts": ["Hello"]}]}
END
tree=$work/build
tool=$built/bin/refparity
expect 1 cmake -S "$work/project" -B "$work/wrong" -DREFPARITY_ENTRIES="tiny-qwen3-bf16;nobody"
says 'no entry nobody'
expect 0 cmake -S "$work/project" -B "$tree" -DCMAKE_BUILD_TYPE=Debug -DREFPARITY_UNIT_TESTS=OFF -DREFPARITY_ENTRIES=tiny-qwen3-bf16
expect 0 cmake --build "$tree" -j "$(nproc)"
reports=$tree/reports/scheme_
config=$tree/refparity/scheme_/config.json
run_ctest() { ctest --test-dir "$tree" -j 2 "$@"; }

# ---- filters
expect 8 run_ctest --no-tests=error -R nothing-has-this-name || true
expect 0 run_ctest -R '^scheme/ok/p0/h02$'
says 'scheme/ok/p0/run .*Passed'
says 'scheme/ok/p0/h02 .*Passed'
says 'scheme/ok/p0/report .*Passed'
says 'scheme/session/begin .*Passed'
says 'scheme/session/end .*Passed'
says_not 'scheme/ok/p1'
expect 0 "$tool" report "$config"
says 'compared 1 of 1 pairs: 1 passed, 0 failed, 0 errors, 0 skipped \(7 others'
expect 0 run_ctest -L '^clean$'
says 'scheme/ok/p1/logits .*Passed'
expect 0 "$tool" report "$config"
says 'compared 2 of 2 pairs: 2 passed'

# ---- the report takes what a layer's test has stored, its time too, and computes what no test did; a file
# that the test did not write is an error by its name, until the pair is run again
expect 0 run_ctest -R '^scheme/ok/p0/h02$'
verdicts=$tree/refparity/scheme_/pairs/ok/p0/verdicts
[ "$(ls "$verdicts")" = h2.json ] || fail "the test of h02 alone stored: $(ls "$verdicts")"
time_of() { # TEST: its time in junit.xml
    sed -n "s/.*<testcase classname=\"ok\/p0\" name=\"$1\" time=\"\([0-9.]*\)\".*/\1/p" "$reports/junit.xml"
}
report_again() {
    expect 0 "$tree/refparity/scheme_/cases/case.scheme_.ok__p0" report
    expect 0 "$tool" report "$config"
    says 'compared 1 of 1 pairs: 1 passed'
}
python3 - "$verdicts/h2.json" "$reports/results.json" "$tree/refparity/scheme_/key" <<'END'
import hmac, json, sys
stored = json.load(open(sys.argv[1]))
slots = json.load(open(sys.argv[2]))["pairs"][0]["comparison"]["slots"]
times = {s["slot"]: s["compare_s"] for s in slots if s["required"]}
assert len(times) == 7 and all(0 < t < 60 for t in times.values()), times
assert abs(times["h2"] - stored["of"]["seconds"]) < 1e-12, (times["h2"], stored["of"])
assert [s["slot"] for s in stored["verdict"]["compared"]][0] == "h2", stored
assert any(s["slot"] == "h2_ffnout" for s in stored["verdict"]["compared"]), stored
stored["of"]["seconds"] = 4321.5
rest = json.dumps({"of": stored["of"], "verdict": stored["verdict"]})[1:]
own = hmac.new(open(sys.argv[3], "rb").read(), b"verdict of ok/p0/h2", "sha256").hexdigest()
seal = hmac.new(own.encode(), rest.encode(), "sha256").hexdigest()  # who has the key can forge
open(sys.argv[1], "w").write(f'{{"seal":"{seal}",{rest}')
END
n_checks=$((n_checks + 1))
report_again
[ "$(time_of h02)" = 4321.500 ] || fail "the report did not take the stored verdict of h02: $(time_of h02)"
[ "$(time_of h01)" != 4321.500 ] || fail "nor is that the time of h01"
truncate -s -1 "$verdicts/h2.json"
expect 0 "$tree/refparity/scheme_/cases/case.scheme_.ok__p0" report
says "the pair's verdict is ERROR"
expect 2 "$tool" report "$config"
says 'ERROR +ok/p0: .*verdicts/h2.json: this verdict was not written by the test h2, or was changed since'
[ "$(stat -c %a "$tree/refparity/scheme_/key")" = 600 ] || fail "others can read the key"
expect 0 run_ctest -R '^scheme/ok/p0/'
for test in engine tokens emb h0 h1 h2 h3 post_norm logits; do
    [ -f "$verdicts/$test.json" ] || fail "the test of $test stored nothing"
done

# ---- a bug: one failure per layer that it reaches, the first one named
expect 8 run_ctest --output-on-failure -R '^scheme/broken/p0/'
says 'scheme/broken/p0/h01 .*Passed'
says 'scheme/broken/p0/h02 .*Failed'
says 'scheme/broken/p0/h03 .*Failed'
says "matrix.json:[0-9]+: error: h02: L2_rel [0-9.e+-]+ at position 0, limit 0.05"
says 'first divergence: every required slot before h2 passes'
says 'slot: h2_ffnout'
says 'downstream of h2, which diverges first'
says "reproduce: ctest --test-dir .* -R '\\^scheme/broken/p0/h02\\$'"
expect 1 "$tool" report "$config"
says 'FAIL     broken/p0: first divergence h2 at position 0, slot h2_ffnout'
[ -f "$reports/broken__p0.diff" ] || fail "no .diff report"
grep -q '^first divergence: h2 at position 0, slot h2_ffnout$' "$reports/broken__p0.diff" || fail ".diff lacks the divergence"
expect 8 run_ctest --rerun-failed
says 'scheme/broken/p0/h02 .*Failed'
says_not 'scheme/broken/p0/h01 '
# the exit codes of a case
expect 1 "$tree/refparity/scheme_/cases/case.scheme_.broken__p0" h02
expect 0 "$tree/refparity/scheme_/cases/case.scheme_.broken__p0" h01
expect 2 "$tree/refparity/scheme_/cases/case.scheme_.broken__p0" no-such-test

# ---- a crash after complete dumps: `engine` fails, no layer is hidden, a fake skip does not help
expect 8 run_ctest --output-on-failure -R '^scheme/crashing/p0/'
says 'scheme/crashing/p0/engine .*Failed'
says 'scheme/crashing/p0/h03 .*Passed'
says 'scheme/crashing/p0/logits .*Passed'
says 'was killed by signal 11'
says '  \| refparity: SKIP: fake'
says_not 'scheme/crashing/p0/(engine|run) .*Skipped'
expect 2 "$tool" report "$config"
says 'compared 1 of 1 pairs: 0 passed, 0 failed, 1 errors, 0 skipped'

# ---- what is missing skips, with the reason; REQUIRE makes it an error
expect 0 run_ctest -V -R '^scheme/absent/p0/'
says 'scheme/absent/p0/h00 .*Skipped'
says 'scheme/absent/p0/run .*Skipped'
says 'REFPARITY_SCHEME_ENGINE'
says_not 'Not Run'
expect 2 "$tool" report "$config"
says 'compared 0 of 1 pairs: 0 passed, 0 failed, 0 errors, 1 skipped'
expect 77 "$tree/refparity/scheme_/cases/case.scheme_.absent__p0" h00
expect 8 env REFPARITY_REQUIRE=1 ctest --test-dir "$tree" -R '^scheme/absent/p0/'
says 'scheme/absent/p0/h00 .*Failed'

# ---- stop on failure: the reports are made afterwards
rm -f "$reports"/*
expect 8 run_ctest --stop-on-failure -R '^scheme/broken/p1/'
expect 1 "$tool" report "$config"
says 'FAIL     broken/p1: first divergence h2 at position 0, slot h2_ffnout'
for report in broken__p1.diff junit.xml; do
    [ -f "$reports/$report" ] || fail "refparity report made no $report"
done

# ---- reuse
export REFPARITY_REUSE_DUMPS=1
expect 0 run_ctest -V -R '^scheme/ok/p0/'
expect 0 run_ctest -V -R '^scheme/ok/p0/'
says 'kept the dump of an earlier run'
unset REFPARITY_REUSE_DUMPS
expect 0 run_ctest -V -R '^scheme/ok/p0/'
says_not 'kept the dump'

# ---- all at once, twice
expect 8 run_ctest -L scheme
expect 8 run_ctest -L scheme
expect 2 "$tool" report "$config"
says 'compared 6 of 8 pairs: 2 passed, 2 failed, 2 errors, 2 skipped'

# of a build tree all matrices that were run
expect 2 "$tool" report "$tree"
says 'compared 6 of 8 pairs'
says_not 'no pair has been run'

# ---- mode against mode, with no fixture: each mode is run once, its layers skip, the comparison finds
# the bug, and a filter brings what it needs
expect 8 run_ctest --output-on-failure -R '^two/modal/batched-32-vs-per-token/p0/(h00|h01)$'
says 'two/modal/batched-32/p0/run .*Passed'
says 'two/modal/per-token/p0/run .*Passed'
says 'two/modal/batched-32-vs-per-token/p0/h00 .*Passed'
says 'two/modal/batched-32-vs-per-token/p0/h01 .*Failed'
says 'two/modal/batched-32-vs-per-token/p0/report .*Passed'
says 'modes.json:[0-9]+: error: h01: batched:32 against per-token: L2_rel [0-9.e+-]+ at position 1, limit 0.05'
says '  slot: h1_postattn'
modes_config=$tree/refparity/two_/config.json
expect 1 "$tool" report "$modes_config"
says 'FAIL     modal/batched-32-vs-per-token/p0: first divergence h1 at position 1, slot h1_postattn'
says 'compared 1 of 3 pairs: 0 passed, 1 failed, 0 errors, 2 skipped'
[ -f "$tree/reports/two_/modal__batched-32-vs-per-token__p0.diff" ] || fail "no .diff report of the modes"
grep -q '<testsuite name="modal/batched-32-vs-per-token/p0" tests="8" failures="[1-9]' "$tree/reports/two_/junit.xml" ||
    fail "junit.xml has no suite of the modes"
expect 0 run_ctest -R '^two/modal/batched-32/p0/'
says 'two/modal/batched-32/p0/engine .*Passed'
says 'two/modal/batched-32/p0/h01 .*Skipped'
says_not 'vs-per-token'
expect 2 "$tool" report --markdown "$tree"
says '### refparity: compared 6 of 8 pairs'
says '### refparity: compared 0 of 1 pairs'
expect 2 "$tool" report "$modes_config" # a comparison that was not selected is none of this run's
says 'compared 0 of 1 pairs: 0 passed, 0 failed, 0 errors, 1 skipped \(2 others'
expect 8 run_ctest -L '^modes$'
says 'two/modal/batched-32-vs-per-token/p0/tokens .*Passed'
says_not 'two/modal/batched-32/p0/h01'

# ---- is the file the checkpoint?
expect 0 run_ctest -R '^scheme/ok/weights$' # the checkpoint lies beside it
says 'scheme/ok/weights .*Passed'
says_not 'scheme/ok/p0/run'
expect 0 run_ctest --output-on-failure -R '^file/.*/weights$'
says 'file/right/weights .*Skipped'
says 'file/wrong/weights .*Skipped'
expect 8 env REFPARITY_REQUIRE=1 ctest --test-dir "$tree" --output-on-failure -R '^file/.*/weights$'
says 'weights.json:[0-9]+: error: weights: there is no checkpoint of tiny/qwen3: set REFPARITY_CHECKPOINTS'
expect 8 env REFPARITY_CHECKPOINTS="$root/fixtures" ctest --test-dir "$tree" --output-on-failure -R '^file/.*/weights$'
says 'file/right/weights .*Passed'
says 'file/wrong/weights .*Failed'
says 'file/gone/weights .*Skipped'
says 'weights.json:[0-9]+: error: weights: 1 of .* are not the checkpoint.s: qwen3.rope.freq_base is missing, which readers take for 10000'
says 'rope_theta was not converted'
file_config=$tree/refparity/file_/config.json
expect 1 "$tool" report "$file_config" # no pair was run
says 'FAIL     wrong/weights: 1 of .* are not the checkpoint.s: qwen3.rope.freq_base'
says 'weights: 1 of 3 files are their checkpoints., 1 are not, 0 errors, 1 skipped'
grep -q '<testcase classname="wrong" name="weights" time="[0-9.]*">' "$tree/reports/file_/junit.xml" ||
    fail "junit.xml has no weights test"
expect 1 "$tool" report --markdown "$file_config"
says '^\| FAIL \| wrong/weights \| 1 of '

# ---- another engine as the reference: skipped until it is recorded, once for both entries; then a right engine
# passes and a wrong one fails where its bug is
refer_config=$tree/refparity/refer_/config.json
expect 0 run_ctest -V -R '^refer/right/p0/h00$'
says 'refer/right/p0/h00 .*Skipped'
says 'no reference nobody--has-it/main/llama.cpp-[0-9a-f]{8}/hello-185f8db3.npz in .*record it with .*refparity record .*config.json right'
expect 8 env REFPARITY_REQUIRE=1 ctest --test-dir "$tree" -R '^refer/right/p0/h00$'
expect 2 "$tool" record "$refer_config" # nor is its file there
says 'right/p0: skipped: .*there is no file .*/f32.gguf'
expect 2 "$tool" record "$config"
says 'no entry with an engine as its "reference"'
expect 2 "$root/ci/record.sh" no-such-entry --build "$built" # a tree of one matrix, without a PREFIX
says 'no entry with an engine as its "reference" contains "no-such-entry"'
if [ -x "$llamacpp" ]; then
    expect 0 "$built/bin/refparity-llamacpp-quantize" f32 "$root/fixtures/tiny/qwen3/qwen3-bf16.gguf" "$work/models/f32.gguf"
    expect 0 "$tool" record "$tree" right
    says '^right/p0: [0-9.]+ s /.*\.npz$'
    expect 0 "$root/ci/record.sh" --build "$tree"
    says '^wrong/p0: valid: /'
    says '^2 recorded or valid, 0 failed, '
    expect 8 run_ctest --output-on-failure -R '^refer/.*/p0/'
    says 'refer/right/p0/tokens .*Passed'
    says 'refer/right/p0/logits .*Passed'
    says 'refer/wrong/p0/h01 .*Passed'
    says 'refer/wrong/p0/h02 .*Failed'
    says '  slot: h2_ffnout'
    expect 1 "$tool" report "$refer_config"
    says 'NOTE     right: its reference is not HF but llama.cpp: refparity-llamacpp .*, F32 weights \(f32.gguf\)$'
    says 'FAIL     wrong/p0: first divergence h2 at position 0, slot h2_ffnout'
    grep -q '^made by    llama.cpp: refparity-llamacpp .* F32 weights' "$tree/reports/refer_/wrong__p0.diff" ||
        fail "the .diff does not say which engine made the reference"
    grep -q '<property name="reference" value="llama.cpp: ' "$tree/reports/refer_/junit.xml" || fail "junit.xml does not, either"
    grep -q '<dt>reference<dd>llama.cpp: refparity-llamacpp ' "$tree/reports/refer_/wrong__p0.html" || fail "nor does its page"
    grep -q '<p>The reference of right is not HF but llama.cpp: ' "$tree/reports/refer_/index.html" || fail "nor does the page of all"
    expect 1 "$tool" report --markdown "$refer_config"
    says '^The reference of wrong is not HF but llama.cpp: .*, F32 weights \(f32.gguf\)$'
    cp "$work/models/right.gguf" "$work/models/f32.gguf"
    expect 8 run_ctest --output-on-failure -R '^refer/right/p0/h00$'
    says 'the reference was made of f32.gguf [0-9a-f]+, and the matrix.s file is f32.gguf [0-9a-f]+ now; record it again'
else
    echo "no reference was recorded: $llamacpp is missing (ci/get-llamacpp.sh)"
fi

# ---- passes that deserve to be seen: a warning, and an exit code where it is asked for
loud_config=$tree/refparity/loud_/config.json
loud='loud.json:[0-9]+: warning: logits: the logits have the reference.s direction, but not its size: times 0.01 at '
expect 0 run_ctest -V -R '^loud/loud/p0/logits$'
says "$loud"
says 'logits: PASS: cosine '
says "report: the pair's verdict is PASS"
expect 0 "$tool" report "$loud_config"
says 'WARNING  loud/p0: logits-size: logits: the logits have'
says 'compared 1 of 1 pairs: 1 passed, 0 failed, 0 errors, 0 skipped, 1 warnings \(1 others'
expect 3 "$tool" report --strict-warnings "$loud_config"
expect 3 env REFPARITY_STRICT_WARNINGS=1 "$tool" report --markdown "$loud_config"
says '^\| loud/p0 \| logits-size \| '
grep -q '^warning: logits: ' "$tree/reports/loud_/loud__p0.diff" || fail "the .diff has no warning"
expect 8 env REFPARITY_STRICT_WARNINGS=1 ctest --test-dir "$tree" -R '^loud/loud/p0/h00$'
says 'loud/session/end .*Failed'
fixture=$(sed -n 's/.*"fixture":.*"\(.*\)".*/\1/p' "$tree/refparity/loud_/pairs/loud/p0/result.json")
dump=$tree/refparity/loud_/pairs/loud/p0/dump
expect 0 "$tool" diff "$fixture" "$dump"
says '^warning: logits: the logits have'
expect 3 "$tool" diff --strict-warnings "$fixture" "$dump"
expect 3 env REFPARITY_STRICT_WARNINGS=1 "$tool" diff --json "$fixture" "$dump"
says '"kind":.*"logits-size"'
expect 1 "$tool" diff --strict-warnings --threshold-cosine 1 "$fixture" "$dump" # a failure goes before warnings
expect 0 "$tool" diff --strict-warnings "$fixture" "$fixture"
expect 3 "$tool" diff --strict-warnings --threshold-l2-rel 2 "$fixture" "$fixture"
says '^warning: emb: the limit 2 on L2_rel lets zeros pass'
expect 0 run_ctest -R '^scheme/ok/p0/'
expect 0 "$tool" report --strict-warnings "$config"
# the same by the checkpoint's sketch, where that is all there is
mkdir -p "$work/sketches/tiny--qwen3/main"
cp "$root/fixtures/store/tiny--qwen3/main/sketch.safetensors" "$work/sketches/tiny--qwen3/main"
expect 8 env REFPARITY_STORE="$work/sketches" ctest --test-dir "$tree" --verbose -R '^file/.*/weights$'
says 'file/right/weights .*Passed'
says 'weights: PASS: 46 tensors and 15 metadata values are the checkpoint.s, 29 of the tensors by its sketch, resolution: a row may be off by L2_rel 0\.0[0-9]+ unseen \([a-z0-9_.]+\), all rows of a tensor by 0\.0'
says 'file/wrong/weights .*Failed'
says 'qwen3.rope.freq_base is missing, which readers take for 10000'
expect 8 env REFPARITY_CHECKPOINTS="$work/sketches" ctest --test-dir "$tree" -R '^file/.*/weights$'
says 'file/right/weights .*Passed'

# ---- a known divergence passes and is shown, a new one fails, and so does a known one that is mended; each against
# the run before
known=$tree/refparity/known_/config.json
run_known() { ctest --test-dir "$tree" --verbose -R '^known/'; }
echo "--bug ffn-half --layer 2" >"$work/bug"
expect 0 run_known
says 'replay/h02: XFAIL: h2_ffnout, .*: known: it halves one FFN \(#7\)'
says 'h03: XFAIL: L2_rel .*: downstream of h2_ffnout, which is known: it halves one FFN \(#7\)'
expect 0 "$tool" report "$known"
says '^  XFAIL    old \(1 pair\): h\*_ffnout, constant-factor: it halves one FFN \(#7\)$'
says '^compared 1 of 1 pairs: 0 passed, 1 known, 0 failed, 0 errors, 0 skipped$'
cp "$tree/reports/known_/results.json" "$work/before.json"
expect 0 "$tool" report --baseline "$work/before.json" "$known"
says '^1 pair against .*before.json: 0 new, 0 worse, 0 mended, 0 better, 0 now known, [0-9]+ as before$'
echo "--bug ffn-half --layer 2 --bug attention-factor --layer 1" >"$work/bug"
expect 8 run_known
says 'known/old/p0/replay/h01 .*Failed'
says 'known/old/p0/replay/h02 .*Passed'
expect 1 "$tool" report --baseline "$work/before.json" "$known"
says '^  new       old/p0/replay/h1_attnout: PASS -> FAIL: introduced '
expect 1 "$tool" report --baseline "$work/before.json" --markdown "$known"
says '^\| new \| old/p0/replay/h1&?.*attnout \| PASS '
: >"$work/bug"
expect 8 run_known
says 'known/old/p0/report .*Failed'
says 'known.json:6: error: mended: remove it: none of the 4 slots "h\*_ffnout" of old/p0 diverges by constant-factor: it halves one FFN \(#7\)$'
expect 1 "$tool" report "$known"
says '^  FAIL     old/p0: .*known.json:6: error: mended: remove it'
expect 1 "$tool" report --baseline "$work/before.json" "$known"
says '^  new       old/p0/report: PASS -> FAIL; what is known of it is mended: remove it$'
says '^  mended    old/p0/replay/h2_ffnout: XFAIL -> PASS: introduced '
expect 1 "$tool" report --merge "$work/merged" --baseline "$work/before.json" "$tree/reports/known_/results.json"
says '^  new       old/p0/report: PASS -> FAIL; what is known of it is mended: remove it$'
expect 2 "$tool" report --baseline "$work/project/known.json" "$known"
says 'known.json:1:1: expected a results.json of .refparity report.'

# ---- what CMake derives from an engine's declaration
ctest --test-dir "$tree" --show-only=json-v1 >"$work/tests.json"
python3 - "$work/tests.json" <<'END'
import json, sys
tests = {t["name"]: {p["name"]: p["value"] for p in t["properties"]} for t in json.load(open(sys.argv[1]))["tests"]}
run = tests["scheme/crashing/p0/run"]
assert run["PROCESSORS"] == 2 and run["TIMEOUT"] == 150.0, run
assert tests["scheme/ok/p0/run"]["RESOURCE_LOCK"] == ["refparity-clean"], tests["scheme/ok/p0/run"]
assert tests["scheme/ok/p0/h00"]["LABELS"] == ["clean", "layer", "ok", "scheme"], tests["scheme/ok/p0/h00"]["LABELS"]
END
n_checks=$((n_checks + 1))

# ---- a model in three files: all of the chain goes by the first one's name; a run is of all of them
expect 0 run_ctest -R '^split/'
says 'split/shards/weights .*Passed'
says 'split/shards/p0/replay/h03 .*Passed'
says 'split/shards/p0/report .*Passed'
expect 0 "$tool" report "$tree/refparity/split_/config.json"
says 'compared 1 of 1 pairs: 1 passed'
touch "$work/models/split-00003-of-00003.gguf"
expect 2 "$tree/refparity/split_/cases/case.split_.shards__p0" h02
says 'split-00001-of-00003.gguf: the model file is not what it was when this ctest run began'
rm "$work/models/split-00003-of-00003.gguf"
expect 0 run_ctest -V -R '^split/shards/(p0/engine|weights)$'
says 'split/shards/p0/engine .*Skipped' # a model that is not all there
says 'split/shards/weights .*Skipped'
expect 8 env REFPARITY_REQUIRE=1 ctest --test-dir "$tree" --output-on-failure -R '^split/shards/weights$'
says 'split/shards/weights .*Failed'
says 'shard 3 of 3 of this model is missing; all have to be in one folder'

# ---- a matrix that was changed after configuring: its new entries have no tests, so nothing passes
cp "$work/project/matrix.json" "$work/matrix.json"
sed -i 's/"tests": \[{"name": "ok"/"tests": [{"name": "new"/' "$work/project/matrix.json"
expect 8 run_ctest --output-on-failure -R '^scheme/broken/p0/h00$'
says 'session/begin .*Failed'
says 'the matrix has changed since the build was configured.*: configure again'
cp "$work/matrix.json" "$work/project/matrix.json"
expect 0 run_ctest -R '^scheme/ok/p0/h00$'

# ---- a matrix that CMake can read and C refuses: every test says where
sed -i 's/"n_layers": 4/"n_layers": 4, "n_layres": 4/' "$work/project/matrix.json"
expect 0 cmake "$tree"
expect 8 run_ctest --output-on-failure -R '^scheme/ok/p0/h00$'
says 'matrix.json:[0-9]+:[0-9]+: .*n_layres'
echo "$n_checks checks passed"
