#!/usr/bin/env bash
# Dependencies of framework/ go one way: a file includes headers of its own room and of those before it in
# the list below, public headers (refparity/NAME.h) among them. Tests may look up: what they share is used
# where it is needed.
# usage: ci/rooms.sh [FOLDER]; another folder than framework/ is for the test of this check.
set -euo pipefail

rooms='base tensor formats weights operations architectures model compare diagnose replay explain matrix
run report cli'
public='status:base dump:tensor tensor_set:tensor gguf:formats ops:operations overlay:operations
numerics:operations model:model compare:compare metrics:compare limits:compare diagnose:diagnose
replay:replay explain:explain matrix:matrix weights:weights'

cd "${1:-$(dirname "${BASH_SOURCE[0]}")/../framework}"
find . -name '*.[ch]' ! -name '*_test.c' ! -name '*_test_util.[ch]' ! -name '*_fuzz.c' ! -name '*_builder.[ch]' \
    ! -path './include/*' -exec grep -Hn '^ *#include "' {} + |
    awk -v rooms="$rooms" -v public="$public" '
        BEGIN {
            n = split(rooms, name)
            for (i = 1; i <= n; i++) rank[name[i]] = i
            n = split(public, pair)
            for (i = 1; i <= n; i++) { split(pair[i], half, ":"); room_of[half[1]] = half[2] }
        }
        {
            split($0, part, "\""); split(part[1], at, ":"); split(at[1], own, "/"); split(part[2], to, "/")
            from = own[2]; room = to[1]
            if (room == "refparity") { sub(/[.]h$/, "", to[2]); room = room_of[to[2]] }
            if (!(from in rank) || !(room in rank)) { print at[1] ":" at[2] ": error: no room of " part[2]; bad = 1 }
            else if (rank[room] > rank[from]) {
                print "framework/" substr(at[1], 3) ":" at[2] ": error: " from " includes " part[2] ", of a room above it"
                bad = 1
            }
        }
        END { exit bad }'
