#!/usr/bin/env bash
# Makes refparity's packages, and tests them as their users would.
set -euo pipefail

usage() {
    cat <<'END'
usage: ci/package.sh wheel|deb|conan
       ci/package.sh --test [sample|wheel|deb|conan|all]
       ci/package.sh --version

  wheel    a Python wheel, with the libraries that it needs, and its source package, in build/package/wheel
  deb      a Debian source package of what git has at HEAD, in build/package/deb
  conan    the Conan 2 package, in the local cache; REFPARITY_CONAN names the program conan
  --test   sample: versions, man pages, completion, and a wheel without optimization, installed,
           run and removed; wheel: as it is published, of its source package; deb: built, checked by
           lintian, installed, run and purged in a Debian with nothing else in it (root, mmdebstrap);
           conan: created with this system's libraries, and used  [sample]

SOURCE_DATE_EPOCH is the packages' date; by default that of the last commit.
exit codes: 0 all well, 1 a test failed, 2 wrong usage or environment
END
}

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
out=$root/build/package
fixture=fixtures/store/tiny--llama/main/float32/hello-185f8db3.npz
version=$(sed -n 's/^project(refparity VERSION \([0-9.]*\).*/\1/p' CMakeLists.txt)

say() { printf '%s\n' "$*" >&2; }
fail() { # a test
    say "FAILED: $*"
    exit 1
}
need() { # PROGRAM WHAT-TO-INSTALL
    command -v "$1" >/dev/null || {
        say "error: $1 is missing: install $2"
        exit 2
    }
}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if [ -z "${SOURCE_DATE_EPOCH:-}" ]; then
    SOURCE_DATE_EPOCH=$(git log -1 --format=%ct 2>/dev/null || date +%s)
fi
export SOURCE_DATE_EPOCH
export CMAKE_BUILD_PARALLEL_LEVEL=${CMAKE_BUILD_PARALLEL_LEVEL:-$(nproc)} # of wheels

# A Python of its own, with what makes wheels.
python_of_packages() {
    local venv=$root/build/package/venv
    if ! cmp -s ci/package/requirements.txt "$venv/requirements.txt"; then
        rm -rf "$venv" && python3 -m venv "$venv" &&
            "$venv/bin/python" -m pip install -q --require-hashes --requirement ci/package/requirements.txt >&2 &&
            cp ci/package/requirements.txt "$venv" || return 1
    fi
    echo "$venv/bin/python"
}

make_wheel() {
    local python made
    python=$(python_of_packages) || exit 2
    rm -rf "$out/wheel" && mkdir -p "$out/wheel"
    "$python" -m build --no-isolation --outdir "$work/dist" . >"$work/log" 2>&1 || {
        cat "$work/log" >&2
        exit 1
    }
    made=$(echo "$work"/dist/*.whl)
    # cJSON goes into the wheel; zlib and libc are everywhere
    PATH=$(dirname "$python"):$PATH "$python" -m auditwheel repair --wheel-dir "$out/wheel" "$made" >&2
    mv "$work"/dist/*.tar.gz "$out/wheel/"
    ls "$out/wheel"/*
}

# ---- Debian ----

make_deb() {
    local source=$out/deb/refparity-$version
    need dpkg-source dpkg-dev
    rm -rf "$out/deb" && mkdir -p "$source"
    git archive HEAD | tar -x -C "$source"
    tar -C "$out/deb" --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" \
        -cJf "$out/deb/refparity_$version.orig.tar.xz" "refparity-$version"
    cp -r ci/package/debian "$source/debian"
    cat >"$source/debian/changelog" <<END
refparity ($version-1) unstable; urgency=medium

  * Version $version: see CHANGELOG.md.

 -- $(sed -n 's/^Maintainer: //p' ci/package/debian/control)  $(LC_ALL=C date -u -R -d "@$SOURCE_DATE_EPOCH")
END
    (cd "$out/deb" && dpkg-source --build "refparity-$version") >&2
    ls "$out"/deb/*.dsc
}

# A Debian of this machine's release, with nothing but what control asks for, lintian, and what the
# smoke test needs; made once, unpacked anew for each test.
debian_tar() {
    local packages key tar
    packages=$(awk '/^Build-Depends:/ { on = 1; sub(/^[^:]*:/, "") } on && /^[A-Z]/ { exit } on' ci/package/debian/control |
        sed 's/([^)]*)//g; s/debhelper-compat/debhelper/' | tr -d ' \n')
    packages+=lintian,python3-numpy,man-db
    # shellcheck source=/dev/null
    key=$(. /etc/os-release && echo "$VERSION_CODENAME $packages" | sha256sum | cut -c1-12)
    tar=${XDG_CACHE_HOME:-$HOME/.cache}/refparity/debian-$key.tar
    if [ ! -f "$tar" ]; then
        say "making a clean Debian (once; some minutes) ..."
        mkdir -p "$(dirname "$tar")"
        # shellcheck source=/dev/null
        mmdebstrap --quiet --variant=buildd --include="$packages" "$(. /etc/os-release && echo "$VERSION_CODENAME")" \
            "$tar.new.tar" /etc/apt/sources.list.d/debian.sources >&2 && mv "$tar.new.tar" "$tar" || exit 2
    fi
    echo "$tar"
}

in_debian() { # COMMAND: in $work/debian, without network and without this machine's processes
    # shellcheck disable=SC2016 # for the shell inside
    unshare --mount --pid --net --fork sh -c '
        mount -t proc proc "$1/proc" && exec chroot "$1" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin \
            HOME=/root LC_ALL=C.UTF-8 "DEB_BUILD_OPTIONS=$3" sh -ec "$2"' sh "$work/debian" "$1" \
        "${DEB_BUILD_OPTIONS:-nocheck parallel=$(nproc)}"
}

test_deb() {
    local tar
    need mmdebstrap mmdebstrap
    [ "$(id -u)" = 0 ] || {
        say "error: a clean Debian needs root"
        exit 2
    }
    make_deb >/dev/null
    tar=$(debian_tar)
    mkdir "$work/debian" && tar -x -C "$work/debian" -f "$tar"
    mkdir "$work/debian/build"
    cp "$out"/deb/refparity_* "$fixture" ci/package/smoke.py "$work/debian/build/"
    in_debian "cd /build && dpkg-source -x refparity_$version-1.dsc source && cd source && dpkg-buildpackage -us -uc" \
        >"$out/deb/build.log" 2>&1 || {
        tail -n 40 "$out/deb/build.log" >&2
        fail "dpkg-buildpackage: see $out/deb/build.log"
    }
    in_debian "cd /build && lintian --allow-root --fail-on error,warning --tag-display-limit 0 \
        --suppress-tags initial-upload-closes-no-bugs refparity_*.changes" ||
        fail "lintian has errors or warnings"
    cp "$work"/debian/build/*.deb "$out/deb/"
    # shellcheck disable=SC2016 # for the shell inside
    in_debian '
        list() { find / -xdev \( -path /proc -o -path /build -o -path /tmp -o -path /var/lib/dpkg -o -path /var/cache \
            -o -path /var/log -o -path /dev \) -prune -o -print | sort; }
        list >/build/before
        dpkg -i /build/*.deb
        refparity --version
        man --warnings refparity refparity-replay >/build/pages
        test -s /build/pages
        python3 -B /build/smoke.py /build/'"$(basename "$fixture") refparity $version"'
        printf "#include <refparity/dump.h>\nint main(void) { return 0; }\n" >/build/use.c
        cc -DREFPARITY_DUMP_IMPLEMENTATION /build/use.c -o /build/use && /build/use
        mkdir /build/consumer && cd /build/consumer
        printf "cmake_minimum_required(VERSION 3.25)\nproject(use C)\nfind_package(refparity %s REQUIRED)\n" '"$version"' >CMakeLists.txt
        printf "add_executable(use /build/use.c)\ntarget_link_libraries(use refparity::cases)\n" >>CMakeLists.txt
        cmake -B build . && cmake --build build && build/use
        dpkg --purge librefparity-dev python3-refparity-dump refparity refparity-dbgsym
        list >/build/after
        diff /build/before /build/after' || fail "installed, run and purged"
    ls "$out"/deb/*.deb
}

# ---- Conan ----

conan_program() {
    local conan=${REFPARITY_CONAN:-conan}
    need "$conan" "Conan 2 (pip install conan)"
    echo "$conan"
}

make_conan() {
    local conan
    conan=$(conan_program) || exit 2
    "$conan" profile detect --exist-ok >&2
    # nothing is written beside the recipe
    "$conan" create ci/package/conan --conf "tools.cmake.cmake_layout:test_folder=\$TMP" \
        --conf tools.cmake.cmaketoolchain:user_presets= "$@"
}

# ConanCenter's recipes may not be to be had: packages of the same names hold this system's libraries.
stand_in() { # NAME VERSION HEADER... : in $work/NAME
    local name=$1 recipe=$work/$1/conanfile.py header
    mkdir -p "$work/$name/include" "$work/$name/lib"
    for header in "${@:3}"; do
        mkdir -p "$work/$name/include/$(dirname "$header")" && cp "/usr/include/$header" "$work/$name/include/$header"
    done
    cp -L "$(cc -print-file-name="lib${name/zlib/z}.so")" "$work/$name/lib/"
    cat >"$recipe" <<END
from conan import ConanFile
from conan.tools.files import copy


class StandIn(ConanFile):
    name, version, package_type = "$name", "$2", "shared-library"
    settings = "os", "arch"

    def package(self):
        copy(self, "*", self.build_folder, self.package_folder, excludes="conanfile.py")

    def package_info(self):
        self.cpp_info.libs = ["${name/zlib/z}"]
        if self.name == "zlib":  # the names of CMake's own find-module
            self.cpp_info.set_property("cmake_file_name", "ZLIB")
            self.cpp_info.set_property("cmake_target_name", "ZLIB::ZLIB")
END
    "$conan" export-pkg "$work/$name"
}

test_conan() { # by this system's libraries, and by packages as ConanCenter has them
    local conan
    conan=$(conan_program) || exit 2
    export CONAN_HOME=$work/conan
    {
        make_conan --no-remote --options '&:system_libraries=True' &&
            stand_in cjson 1.7.15 cjson/cJSON.h && stand_in zlib 1.2.13 zlib.h zconf.h &&
            stand_in cmocka 1.1.5 cmocka.h && make_conan --no-remote
    } >"$work/log" 2>&1 || {
        tail -n 40 "$work/log" >&2
        fail "conan create"
    }
    "$conan" list --cache "refparity/$version:*" >"$work/log" 2>&1
    [ "$(grep -c 'system_libraries: ' "$work/log")" = 2 ] || fail "conan list has not two packages of refparity/$version"
    grep -q 'cjson/1' "$work/log" || fail "no package of refparity requires cjson"
}

# ---- wheel, pages, completion, versions ----

# In a venv of its own: the files before and after are the same. pip leaves the empty folders of share/.
try_wheel() { # WHEEL
    local venv=$work/venv
    python3 -m venv "$venv" && "$venv/bin/python" -m pip install -q "$(grep -o '^numpy==[0-9.]*' ci/package/requirements.txt)" || exit 2
    find "$venv" -name __pycache__ -prune -o ! -type d -print | sort >"$work/before"
    "$venv/bin/python" -m pip install -q "$1" || fail "pip install $1"
    (cd "$work" && "$venv/bin/python" -B "$root/ci/package/smoke.py" "$root/$fixture" "$venv/bin/refparity" "$version") || exit 1
    "$venv/bin/refparity-record-hf" --help >"$work/log" 2>&1 && fail "the recorder runs without torch"
    grep -q "pip install 'refparity\[record\]'" "$work/log" ||
        fail "the recorder without torch does not say what to install"
    [ ! -e "$work/pages" ] || [ -s "$venv/share/man/man1/refparity-diff.1" ] || fail "the wheel has no man pages"
    "$venv/bin/python" -m pip uninstall -q -y refparity
    find "$venv" -name __pycache__ -prune -o ! -type d -print | sort | diff "$work/before" - || fail "pip uninstall leaves these"
}

test_wheel() {
    make_wheel >/dev/null
    try_wheel "$(echo "$out"/wheel/*.whl)"
}

# Every place that says the version says the same.
test_versions() ( # PROGRAM VERSION; in a shell of its own
    local expected=$2
    [ -n "$expected" ] || fail "CMakeLists.txt has no version"
    [ "$("$1" --version)" = "refparity $expected" ] || fail "$1 is not of version $expected"
    grep -m 1 '^## ' CHANGELOG.md | grep -Eq "^## $expected( |\$)" || fail "the first heading of CHANGELOG.md is not $expected"
    grep -q "^__version__ = \"$expected\"" fixtures/engines/refparity_dump.py || fail "refparity_dump.py is not of $expected"
)

test_pages() { # PROGRAM
    local page command
    need help2man help2man
    need mandoc mandoc
    ci/package/man.sh "$1" "$work/pages"
    for command in $("$1" --help | sed -n 's/^  \([a-z][a-z-]*\)  .*/\1/p'); do
        page=$work/pages/refparity-$command.1
        [ -s "$page" ] || fail "refparity $command has no man page"
        mandoc -T lint -W warning "$page" || fail "mandoc warns of $page"
        "$1" "$command" --help | sed -n 's/^  \(--[a-z0-9-]*\).*/\1/p' | while read -r option; do
            mandoc -T utf8 -O width=1000 "$page" | sed 's/.\x08//g' | grep -F -- "$option" >/dev/null || fail "$page lacks $option"
        done
    done
    mandoc -T lint -W warning "$work/pages/refparity.1" || fail "mandoc warns of refparity.1"
    head -n 2 "$work/pages/refparity.1" | grep -F "refparity $version" >/dev/null || fail "refparity.1 is not of $version"
}

test_sample() {
    local program=${REFPARITY_TOOL:-$root/build/parity/bin/refparity} python
    [ -x "$program" ] || {
        say "error: $program is missing: cmake --preset parity && cmake --build --preset parity"
        exit 2
    }
    test_versions "$program" "$version"
    ! test_versions "$program" "$version.1" 2>/dev/null || fail "another version is not noticed"
    test_pages "$program"
    PATH=$(dirname "$program"):$PATH ci/package/completion/test.sh
    python=$(python_of_packages) || exit 2
    "$python" -m pip wheel -q --no-deps --no-index --no-build-isolation --wheel-dir "$work/dist" \
        --config-settings=cmake.build-type=Debug . >&2 || fail "pip wheel"
    try_wheel "$(echo "$work"/dist/*.whl)"
    say "the packages are well"
}

case ${1:-} in
wheel | deb | conan)
    [ $# -eq 1 ] || { usage >&2; exit 2; }
    "make_$1"
    ;;
--test)
    case ${2:-sample} in
    sample | wheel | deb | conan) "test_${2:-sample}" ;;
    all) for kind in sample wheel deb conan; do "${BASH_SOURCE[0]}" --test $kind; done ;;
    *)
        usage >&2
        exit 2
        ;;
    esac
    ;;
--version) echo "$version" ;;
-h | --help) usage ;;
*)
    usage >&2
    exit 2
    ;;
esac
