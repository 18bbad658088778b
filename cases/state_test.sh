#!/usr/bin/env bash
# Engines that keep their values in 16 bits: HF itself, run in BF16 and in F16, is one. With its state
# declared no operation fails; with a bug put in, that operation does, and no other.
set -euo pipefail

if [ $# -ne 1 ]; then
    echo "usage: cases/state_test.sh BUILD_DIR" >&2
    echo "The tiny models, and SmolLM2 where ci/get-smollm2.sh --checkpoint has got it." >&2
    exit 2
fi
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
tool=$(cd "$1" && pwd)/bin/refparity
python=$("$root/ci/record.sh" --print-python)

n_failed=0
n_running=0
n_at_once=$(nproc)
export OMP_NUM_THREADS=1
end_one() {
    wait -n || n_failed=$((n_failed + 1))
    n_running=$((n_running - 1))
}
# run CHECKPOINT GGUF DTYPE [OPTION...]: see cases/state_engine.py; as many at once as there are processors.
run() {
    [ "$n_running" -lt "$n_at_once" ] || end_one
    (
        status=0
        said=$("$python" -B "$root/cases/state_engine.py" "$tool" "$@" 2>&1) || status=$?
        printf '%s\n' "$said"
        exit $status
    ) &
    n_running=$((n_running + 1))
}

for model in qwen3 llama qwen35; do
    folder=$root/fixtures/tiny/$model
    for dtype in bfloat16 float16; do
        run "$folder" "$folder/$model-bf16.gguf" "$dtype" --bugs
        run "$folder" "$folder/$model-bf16.gguf" "$dtype" --layers
        run "$folder" "$folder/$model-bf16.gguf" "$dtype" --fused
    done
done

if smollm2=$("$root/ci/get-smollm2.sh" --find --checkpoint); then
    for dtype in bfloat16:bf16 float16:f16; do
        file=$smollm2/smollm2-135m-${dtype#*:}.gguf
        run "$smollm2/smollm2-135m" "$file" "${dtype%:*}" --bugs
        run "$smollm2/smollm2-135m" "$file" "${dtype%:*}" --prompts 1 --layers
    done
else
    echo "skipped: SmolLM2: get it by ci/get-smollm2.sh --checkpoint"
fi

while [ "$n_running" -gt 0 ]; do end_one; done
echo "$n_failed of the runs failed"
[ "$n_failed" -eq 0 ]
