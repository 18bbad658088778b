#!/usr/bin/env bash
# Everything that passes or fails the project itself. .ci/run calls it.
set -uo pipefail

usage() {
    cat <<'END'
usage: ci/test.sh [STEP ...]
       ci/test.sh --list

Runs the steps, all by default, and prints a line for each; a step's log is in build/test/STEP.log.
Installs what it needs with apt and pip.

exit codes: 0 all steps passed, 1 some failed, 2 the environment is not complete
END
}

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root" || exit 2
logs=$root/build/test
fuzz_seconds=${REFPARITY_FUZZ_SECONDS:-20}
n_jobs=$(nproc)

# What the clean matrix compares: entries x (modes + comparisons of modes) x prompts of the tiny
# models, whatever other models this machine has. A pair that is lost on the way is a failure here.
expected_summary="compared 342 of 397 pairs: 342 passed (93 of them explained), 0 failed, 0 errors, 55 skipped"

steps=(
    "parity:the matrix, as the README runs it, with the exact number of comparisons"
    "workflow:cmake --workflow of a copy, with CMake 3.25 and with the one of ci/requirements.txt"
    "gcc:unit tests and a sample of the matrix, gcc, warnings as errors"
    "clang:the same, clang"
    "format:clang-format"
    "tidy:clang-tidy"
    "rooms:includes go one way"
    "faults:each fault of docs/faults.md has its test"
    "links:every file that a page names is there"
    "shell:shellcheck"
    "sanitize:the same under AddressSanitizer and UndefinedBehaviorSanitizer"
    "valgrind:unit tests under valgrind, but those that only compute"
    "ctest-scheme:what ctest users do: filters, reruns, skips, stop on failure"
    "html:the HTML report, in headless Chromium at two widths"
    "consumer:refparity inside another project: installed, fetched, by pkg-config"
    "packages:one version; man pages and completion of every option; a wheel, installed, run, removed"
    "fuzz:$fuzz_seconds s for each parser"
    "python:the recorder's unit tests"
    "record:the committed fixtures, recorded again"
    "state:HF run in BF16 and F16, every operation replayed: nothing is reported but bugs, in their place"
    "dequantized:the C model against HF on the dequantized weights of Q8_0, Q4_0 and K-quants"
    "detect:a share of the bug catalogue: what is found, where, by which name, and no false alarm"
    "llamacpp:llama.cpp against HF: F32 within 1e-5, a K-quant, with and without its callback"
    "file-formats:files that people have: HF's states in every form that is read, wrong ones, and what is converted"
    "python-engines:transformers in BF16 and F16, and MLX-LM, in the matrix; what MLX-LM computes wrongly, by name"
    "smollm2:a real model in llama.cpp, seven types of weights: nothing is reported but bugs, in their place"
    "readback:matrix schema, results.json and junit.xml, read by others' parsers"
    "many-machines:a Slurm cluster of two nodes, one of which is killed; GitHub's and GitLab's shards: as on one machine"
)

# configure PRESET [OPTION...]: with llama.cpp, which is built first where it is missing (some minutes, once).
configure() {
    local llama
    llama=$(ci/get-llamacpp.sh) && cmake --preset "$1" "-DREFPARITY_LLAMA_DIR=$llama" "${@:2}"
}

# The whole matrix is run once, by the step parity. Other compilers and sanitizers get entries of both engines that
# are built here, of each architecture, of each kind of weights, and with each kind of test.
sample="tiny-qwen3-bf16;tiny-qwen35-q4_0;tiny-llama-q8_0-llamacpp;tiny-qwen35-q4_0-llamacpp"
sample_summary='^compared ([0-9]{2,}) of \1 pairs: \1 passed'

build_and_test() {
    local passed
    configure "$1" "-DREFPARITY_ENTRIES=$sample" && cmake --build --preset "$1" && ctest --preset "$1" --no-label-summary &&
        passed=$("build/$1/bin/refparity" report "build/$1") && grep -E "$sample_summary" <<<"$passed"
}

install_pinned() { "$1" -m pip install -q --require-hashes --requirement ci/requirements.txt; } # PYTHON

step_parity() {
    configure parity && REFPARITY_MODELS=$root/build/no-models ci/parity.sh && build/parity/bin/refparity report build/parity | grep -F "$expected_summary"
}

# The copy stands where a clone would. The workflow has no place for options: the second configuration keeps those
# of the first.
step_workflow() ( # in a shell of its own, since it leaves the folder
    local venv=$root/build/cmake-venv clone=$root/build/workflow
    local few=(-DREFPARITY_UNIT_TESTS=OFF "-DREFPARITY_ENTRIES=tiny-qwen3-bf16;tiny-llama-q4_0")
    rm -rf "$clone" && mkdir -p "$clone" && git ls-files -z | tar -c --null -T - | tar -x -C "$clone" &&
        python3 -m venv "$venv" && install_pinned "$venv/bin/python" && cd "$clone" &&
        /usr/bin/cmake --version && /usr/bin/cmake --preset parity "${few[@]}" && /usr/bin/cmake --workflow --preset parity &&
        rm -rf build/parity && "$venv/bin/cmake" --version && "$venv/bin/cmake" --preset parity "${few[@]}" &&
        "$venv/bin/cmake" --workflow --preset parity
)

step_gcc() { build_and_test strict; }
step_clang() { build_and_test strict-clang; }
step_format() { git ls-files '*.c' '*.h' | xargs clang-format --dry-run --Werror; }
step_tidy() { configure strict-clang "-DREFPARITY_ENTRIES=$sample" >/dev/null && ci/tidy.py build/strict-clang; }
step_rooms() {
    local wrong
    wrong=$(mktemp -d) && mkdir "$wrong/base" && echo '#include "cli/cli.h"' >"$wrong/base/wrong.c" &&
        ci/rooms.sh && ! ci/rooms.sh "$wrong"
}
step_faults() { # a page that names no test that there is must fail
    local wrong
    wrong=$(mktemp) && sed s/a_failed_write_leaves_nothing/no_such_test/ docs/faults.md >"$wrong" &&
        ci/faults.sh && ! ci/faults.sh "$wrong"
}
step_links() { # of a page with a dead link, a dead heading and a dead path each is an error
    local wrong
    wrong=$(mktemp --suffix=.md) && printf '%s\n' '[a](no-such-page.md) [b](#no-heading)' "\`ci/no-such-script.sh\`" >"$wrong" &&
        ci/links.sh && ! ci/links.sh "$wrong" && [ "$(ci/links.sh "$wrong" | grep -c error:)" = 3 ]
}
step_shell() { git ls-files '*.sh' .ci/run | xargs shellcheck; }
step_sanitize() { build_and_test sanitize; }

# Without the tests that compute for minutes there, and those whose exit codes valgrind changes: the
# sanitizers' step has them.
step_valgrind() {
    cmake --preset parity && cmake --build --preset parity || return 1
    local check=(valgrind --quiet --suppressions=ci/valgrind.supp --num-callers=40 --error-exitcode=9 --leak-check=full)
    find build/parity/framework -maxdepth 1 -name '*_test' -type f -perm -u+x |
        grep -vE '/(explain|replay|diagnose)_|_(hypotheses|trials|hf_parity|attention_bound|cache_tips|dump_damage|kl|mapped_fault|seal)_test$' | sort |
        xargs -t -P "$n_jobs" -n 1 "${check[@]}" --errors-for-leak-kinds=all || return 1
    echo "== the tool, on one entry"
    ctest --preset parity --no-label-summary -R '^tiny-qwen3-bf16/' && "${check[@]}" build/parity/bin/refparity report build/parity
}

step_ctest-scheme() { cases/ctest_scheme_test.sh build/parity; }

step_html() { cases/html_report_test.sh build/parity; }

step_consumer() { cases/consumer_test.sh build/parity; }

step_packages() { ci/package.sh --test sample; }

step_fuzz() {
    cmake --preset fuzz && cmake --build --preset fuzz || return 1
    find build/fuzz/framework -maxdepth 1 -name '*_fuzz' -type f | sort |
        xargs -P "$n_jobs" -I{} ci/fuzz.sh {} "$fuzz_seconds"
}

step_python() { ci/record.sh --test; }
step_record() {
    ci/record.sh --check tiny && ci/record.sh good --check --matrix cases/consumer/matrix.json
}

step_state() { cases/state_test.sh build/parity; }
step_dequantized() { cases/dequantized_test.sh build/parity; }

step_detect() { ci/detect.sh --quick; }

step_llamacpp() {
    configure parity && cmake --build --preset parity && cases/llamacpp_test.sh build/parity && cases/families_test.sh build/parity &&
        "$(ci/record.sh --print-python)" cases/hf_replay_test.py build/parity
}

step_file-formats() { cases/file_formats_test.sh build/parity; }
step_python-engines() { cases/python_engines_test.sh build/parity; }

step_smollm2() {
    local build=build/parity
    configure parity && cmake --build --preset parity && ci/get-smollm2.sh --checkpoint &&
        cases/smollm2_test.sh $build --checkpoint --slots operations && cases/smollm2_test.sh $build &&
        cases/smollm2_test.sh $build --bugs
}

step_readback() {
    local python
    python=$(ci/record.sh --print-python) && install_pinned "$python" &&
        "$python" cases/readback_test.py matrix build/parity/reports
}

step_many-machines() { # last: its reports take the place of build/parity's
    configure parity && cmake --build --preset parity || return 1
    cases/slurm_test.sh build/parity || [ $? = 77 ] || return 1 # 77: skipped, with its reason
    "$(ci/record.sh --print-python)" -B cases/ci_templates_test.py build/parity
}

run_step() { # NAME DESCRIPTION
    local start=$SECONDS status=PASS
    "step_$1" >"$logs/$1.log" 2>&1 </dev/null || status=FAIL
    printf '%s  %-13s %s (%d s)\n' "$status" "$1" "$2" $((SECONDS - start))
    [ "$status" = PASS ] && return 0
    echo "---- end of $logs/$1.log"
    tail -n 60 "$logs/$1.log"
    echo "----"
    return 1
}

case ${1:-} in
-h | --help)
    usage
    exit 0
    ;;
--list)
    for step in "${steps[@]}"; do printf '%-13s %s\n' "${step%%:*}" "${step#*:}"; done
    exit 0
    ;;
esac
for wanted in "$@"; do
    [[ " ${steps[*]%%:*} " == *" $wanted "* ]] || {
        echo "error: no step '$wanted': see ci/test.sh --list" >&2
        exit 2
    }
done

# The same file is compiled by several steps and in copies of the tree: once is enough.
export CMAKE_C_COMPILER_LAUNCHER=ccache CCACHE_BASEDIR=$root CCACHE_NOHASHDIR=1
mkdir -p "$logs"
ci/install.sh build && ci/install.sh checks && ci/install.sh llamacpp || exit 2
n_passed=0
n_failed=0
for step in "${steps[@]}"; do
    name=${step%%:*}
    if [ $# -gt 0 ] && [[ " $* " != *" $name "* ]]; then
        continue
    fi
    if run_step "$name" "${step#*:}"; then
        n_passed=$((n_passed + 1))
    else
        n_failed=$((n_failed + 1))
    fi
done
echo "$n_passed passed, $n_failed failed"
[ "$n_failed" -eq 0 ]
