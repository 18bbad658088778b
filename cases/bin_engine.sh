#!/bin/sh
# Makes an engine that dumps .npy one that dumps as quant.cpp does, raw FP32 in NAME_p{pos}.bin, or
# with SINGLE=pos in NAME.bin, and no token ids: bin_engine.sh DUMP ENGINE ARGUMENT... (without --dump)
set -eu
export LC_ALL=C
dump=$1
shift
"$@" --dump "$dump.npy" || exit
for npy in "$dump.npy"/*.npy; do
    name=$(basename "$npy" .npy)
    [ "$name" != tokens ] || continue
    header=$((10 + $(od -An -tu2 -j8 -N2 "$npy")))
    dim=$(head -c "$header" "$npy" | tr -d '\0' | sed -n "s/.*'shape': ([0-9]*, \([0-9]*\)).*/\1/p")
    rm -rf "$dump.parts"
    mkdir "$dump.parts"
    tail -c "+$((header + 1))" "$npy" | split -a 4 -b "$((4 * dim))" - "$dump.parts/"
    position=0
    for part in "$dump.parts"/*; do
        if [ -z "${SINGLE:-}" ]; then
            mv "$part" "$dump/${name}_p$position.bin"
        elif [ "$SINGLE" = "$position" ]; then
            mv "$part" "$dump/$name.bin"
        fi
        position=$((position + 1))
    done
done
rm -rf "$dump.npy" "$dump.parts"
