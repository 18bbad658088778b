#!/usr/bin/env bash
# Installs what a group of ci/ scripts needs, on Debian and its relatives; elsewhere says what to
# install. What is there already is left alone.
set -euo pipefail

usage() {
    cat <<'END'
usage: ci/install.sh build|checks|record|llamacpp|slurm

  build    what ci/parity.sh needs: a C compiler, make, CMake 3.25, cmocka, cJSON, zlib
  checks   what ci/test.sh needs beyond that: clang and its tools, valgrind
  record   what ci/record.sh needs: Python 3.11 with venv
  llamacpp what ci/get-llamacpp.sh needs: a C++ compiler, make, CMake, pip
  slurm    what cases/slurm_test.sh needs: Slurm's daemons and commands, munge

exit codes: 0 all is there now, 2 something is missing and cannot be installed from here
END
}

has() { command -v "$1" >/dev/null 2>&1; }
has_daemon() { has "$1" || test -x "/usr/sbin/$1"; }
has_header() { echo "#include <$1>" | cc -E -x c - >/dev/null 2>&1; }
# cmocka.h does not include what it needs
has_cmocka() { printf '#include <stdarg.h>\n#include <stddef.h>\n#include <setjmp.h>\n#include <stdint.h>\n#include <cmocka.h>\n' | cc -E -x c - >/dev/null 2>&1; }
has_cmake() {
    has cmake && cmake --version | head -n 1 | awk '{split($3, v, "."); exit !(v[1] > 3 || v[1] == 3 && v[2] >= 25)}'
}
has_fuzzer() {
    echo 'int LLVMFuzzerTestOneInput(void); int LLVMFuzzerTestOneInput(void) { return 0; }' |
        clang -fsanitize=fuzzer -x c - -o /dev/null >/dev/null 2>&1
}
has_cblas() {
    printf '#include <cblas.h>\nint main(void) { return cblas_isamax(0, 0, 1) != 0; }\n' |
        cc -x c - -o /dev/null -lopenblas >/dev/null 2>&1
}
has_pip() { python3 -m pip --version >/dev/null 2>&1; }
has_venv() { python3 -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

# need CHECK PACKAGE WHAT: remembers what is missing.
packages=()
missing=()
need() {
    local check=$1 package=$2 what=$3
    # shellcheck disable=SC2086 # the check is a command line
    if ! $check; then
        packages+=("$package")
        missing+=("  $what (Debian: $package)")
    fi
}

look() {
    packages=()
    missing=()
    case $1 in
    build)
        need "has cc" gcc "a C11 compiler"
        need "has make" make "make"
        need "has_cmake" cmake "CMake 3.25 or newer"
        need "has_cmocka" libcmocka-dev "cmocka 1.1.5 or newer"
        need "has_header cjson/cJSON.h" libcjson-dev "cJSON 1.7 or newer"
        need "has_header zlib.h" zlib1g-dev "zlib"
        ;;
    checks)
        need "has clang" clang "clang"
        need "has_fuzzer" "libclang-rt-$(clang_major)-dev" "clang's libFuzzer and sanitizers"
        need "has clang-format" clang-format "clang-format"
        need "has clang-tidy" clang-tidy "clang-tidy"
        need "has ccache" ccache "ccache"
        need "has valgrind" valgrind "valgrind"
        need "test -x /usr/bin/cmake" cmake "the distribution's own CMake"
        need "has g++" g++ "a C++ compiler"
        need "has pkg-config" pkg-config "pkg-config"
        need "has shellcheck" shellcheck "shellcheck"
        need "has help2man" help2man "help2man, for man pages"
        need "has mandoc" mandoc "mandoc, which checks them"
        need "has zsh" zsh "zsh, for its completion"
        need "has fish" fish "fish, for its completion"
        need "has chromium" chromium "Chromium, for the HTML report"
        need "has_cblas" libopenblas-dev "OpenBLAS"
        need "has_venv" python3-venv "Python 3.11 or newer with venv"
        ;;
    record) need "has_venv" python3-venv "Python 3.11 or newer with venv" ;;
    llamacpp)
        need "has ${CXX:-c++}" g++ "a C++17 compiler"
        need "has make" make "make"
        need "has_cmake" cmake "CMake 3.25 or newer"
        need "has_pip" python3-pip "pip for python3"
        need "has tar" tar "tar"
        ;;
    slurm)
        need "has_daemon slurmctld" slurmctld "Slurm's controller"
        need "has_daemon slurmd" slurmd "Slurm's daemon of a node"
        need "has sbatch" slurm-client "Slurm's commands"
        need "has_daemon munged" munge "munge"
        need "has pgrep" procps "pgrep"
        need "has python3" python3 "python3"
        ;;
    esac
}

# Of the clang that is there, or of the one that apt would install.
clang_major() {
    if has clang; then
        clang -dumpversion | cut -d. -f1
    else
        apt-cache depends clang 2>/dev/null | sed -n 's/.*Depends: clang-\([0-9]*\)$/\1/p' | head -n 1
    fi
}

install() {
    local sudo=()
    if [ "$(id -u)" != 0 ]; then
        has sudo || return 1
        sudo=(sudo)
    fi
    echo "installing: ${packages[*]}" >&2
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${packages[@]}" >&2
}

case ${1:-} in
build | checks | record | llamacpp | slurm) ;;
-h | --help)
    usage
    exit 0
    ;;
*)
    usage >&2
    exit 2
    ;;
esac

look "$1"
if [ ${#packages[@]} -gt 0 ] && has apt-get; then
    if [ "$(id -u)" = 0 ]; then apt-get update -qq >&2 || true; elif has sudo; then sudo apt-get update -qq >&2 || true; fi
    look "$1" # the lists may say now which clang there is
    install || true
    hash -r
    look "$1"
fi
if [ ${#packages[@]} -gt 0 ]; then
    {
        echo "error: these are missing; install them and run this again:"
        printf '%s\n' "${missing[@]}"
    } >&2
    exit 2
fi
