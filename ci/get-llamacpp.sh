#!/usr/bin/env bash
# Builds a pinned llama.cpp, the library only, for the engine refparity-llamacpp. Its source is the
# one inside the sdist of llama-cpp-python, so that any PyPI mirror can serve it.
set -euo pipefail

version=0.3.36
sdist_sha256=832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e

usage() {
    cat <<END
usage: ci/get-llamacpp.sh [--dir DIR]
       ci/get-llamacpp.sh --find

Builds the llama.cpp inside llama-cpp-python $version (76 MB of download, some minutes) and installs
its library and headers. The last line on stdout is their folder, for

    cmake --preset parity -DREFPARITY_LLAMA_DIR="\$(ci/get-llamacpp.sh)"

What is there already is kept, so that it can be run again at any time; a build that was interrupted
leaves nothing behind that would be taken for one.

  --dir DIR   install there; default: \${XDG_CACHE_HOME:-~/.cache}/refparity/llamacpp/$version-KEY,
              where KEY stands for compiler, machine and options
  --find      only print that folder when the build is there; exit code 1 when it is not
  --help      this text

The build is not for this very CPU (GGML_NATIVE=OFF; on x86-64 it needs AVX2): a cache serves all
machines of a CI, and sums are taken in the same order on all of them. To test a llama.cpp of your
own, give -DREFPARITY_LLAMA_DIR its build or install tree instead.

exit codes: 0 it is there, 1 --find found none, 2 something is missing or the build failed
END
}

say() { printf '%s\n' "$*" >&2; }
fail() {
    say "error: $*"
    exit 2
}

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
dir=
find_only=false
while [ $# -gt 0 ]; do
    case $1 in
    -h | --help)
        usage
        exit 0
        ;;
    --find) find_only=true ;;
    --dir)
        if [ $# -lt 2 ] || [ -z "$2" ]; then fail "--dir needs a folder: see ci/get-llamacpp.sh --help"; fi
        dir=$2
        shift
        ;;
    *) fail "unknown argument '$1': see ci/get-llamacpp.sh --help" ;;
    esac
    shift
done

# shellcheck disable=SC2016 # $ORIGIN is for the linker
options=(
    -DCMAKE_BUILD_TYPE=Release
    -DBUILD_SHARED_LIBS=ON
    -DGGML_NATIVE=OFF
    -DGGML_OPENMP=OFF # one dependency less; ggml's own threads are as good
    -DLLAMA_BUILD_COMMON=OFF
    -DLLAMA_BUILD_TOOLS=OFF
    -DLLAMA_BUILD_TESTS=OFF
    -DLLAMA_BUILD_EXAMPLES=OFF
    -DLLAMA_BUILD_SERVER=OFF
    -DLLAMA_BUILD_APP=OFF
    -DCMAKE_INSTALL_LIBDIR=lib
    '-DCMAKE_INSTALL_RPATH=$ORIGIN'
)

is_installed() { [ -f "$1/include/llama.h" ] && [ -f "$1/lib/libllama.so" ]; }

if [ -z "$dir" ]; then
    key=$({
        printf '%s\n' "$sdist_sha256" "${options[@]}"
        uname -sm
        "${CXX:-c++}" --version 2>/dev/null | head -n 1
    } | sha256sum | cut -c1-12)
    dir=${XDG_CACHE_HOME:-$HOME/.cache}/refparity/llamacpp/$version-$key
fi
if is_installed "$dir"; then
    cd "$dir" && pwd
    exit 0
fi
[ "$find_only" = false ] || exit 1
if [ -e "$dir" ]; then
    rmdir "$dir" 2>/dev/null || fail "$dir is neither empty nor a llama.cpp that this script installed"
fi

"$root/ci/install.sh" llamacpp

# quietly LOG WHAT COMMAND...: shows the log's end when the command fails.
quietly() {
    local log=$1 what=$2
    shift 2
    say "$what ..."
    "$@" >"$log" 2>&1 || {
        tail -n 40 "$log" >&2
        fail "\`$*\` failed"
    }
}

# Shows every tenth percent of make's output.
show_progress() {
    local line percent next=0
    while IFS= read -r line; do
        [[ $line =~ ^\[\ *([0-9]+)%\] ]] || continue
        percent=${BASH_REMATCH[1]}
        if [ "$percent" -ge "$next" ]; then
            say "  $percent%"
            next=$((percent - percent % 10 + 10))
        fi
    done
}

build() { # WORK: everything happens in there, and only a complete result leaves it
    local work=$1
    quietly "$work/download.log" "downloading llama-cpp-python $version" \
        python3 -m pip download --disable-pip-version-check --no-input --no-deps \
        --no-binary llama-cpp-python --dest "$work" "llama-cpp-python==$version"
    local sdist=$work/llama_cpp_python-$version.tar.gz
    [ -f "$sdist" ] || fail "pip downloaded no $(basename "$sdist"): $(ls "$work")"
    echo "$sdist_sha256  $sdist" | sha256sum --check --status || fail "the sdist is not the pinned one: its sha256 is $(sha256sum "$sdist" | cut -d' ' -f1), expected $sdist_sha256"
    say "unpacking ..."
    tar -xzf "$sdist" -C "$work"
    rm "$sdist"
    local source=$work/llama_cpp_python-$version/vendor/llama.cpp
    quietly "$work/configure.log" "configuring" \
        cmake -S "$source" -B "$work/build" -G "Unix Makefiles" "${options[@]}" -DCMAKE_INSTALL_PREFIX="$dir"
    say "building with $(nproc) jobs ..."
    cmake --build "$work/build" --target llama --parallel "$(nproc)" 2>&1 | tee "$work/build.log" | show_progress ||
        fail "the build failed: $(tail -n 20 "$work/build.log")"
    quietly "$work/install.log" "installing into $dir" cmake --install "$work/build" --prefix "$work/installed" --strip
    cp "$source/LICENSE" "$work/installed/"
    is_installed "$work/installed" || fail "the build made no include/llama.h or lib/libllama.so"
    mv -T "$work/installed" "$dir"
}

mkdir -p "$(dirname "$dir")"
dir=$(cd "$(dirname "$dir")" && pwd)/$(basename "$dir")
exec 9>"$dir.lock"
if command -v flock >/dev/null; then # two at once must not build twice
    flock --nonblock 9 || {
        say "waiting for another ci/get-llamacpp.sh ..."
        flock 9
    }
fi
if ! is_installed "$dir"; then
    work=$(mktemp -d "$dir.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    build "$work"
fi
printf '%s\n' "$dir"
