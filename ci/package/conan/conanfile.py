"""refparity as a Conan 2 package: conan create ci/package/conan --version $(ci/package.sh --version). The sources
are those of this clone."""

import re
from pathlib import Path

from conan import ConanFile
from conan.tools.cmake import CMake, CMakeDeps, CMakeToolchain, cmake_layout
from conan.tools.files import copy, load

SOURCES = ("CMakeLists.txt", "LICENSE", "cases/*", "ci/package/*", "ctest/*", "fixtures/*.py", "fixtures/requirements*",
           "fixtures/engines/*", "framework/*", "matrix/matrix.schema.json")  # fmt: skip


def clone_of(recipe_folder: str) -> Path:
    return Path(recipe_folder).resolve().parents[2]


class Refparity(ConanFile):
    name = "refparity"
    package_type = "static-library"
    license = "Apache-2.0"
    description = "Layer-by-layer comparison of an LLM inference engine with Hugging Face transformers"
    topics = ("llm", "inference", "testing", "parity")
    settings = "os", "arch", "compiler", "build_type"
    options = {"system_libraries": [True, False], "cases": [True, False]}
    default_options = {"system_libraries": False, "cases": True}
    option_descriptions = {
        "system_libraries": "cJSON, zlib and cmocka are this system's, not Conan's",
        "cases": "what tests of engines link, and refparity_add_matrix(); needs cmocka",
    }

    def set_version(self):
        text = load(self, str(clone_of(self.recipe_folder) / "CMakeLists.txt"))
        self.version = re.search(r"project\(refparity VERSION ([0-9.]+)", text).group(1)

    def export_sources(self):
        for pattern in SOURCES:
            copy(self, pattern, str(clone_of(self.recipe_folder)), self.export_sources_folder)

    def configure(self):
        self.settings.rm_safe("compiler.cppstd")
        self.settings.rm_safe("compiler.libcxx")

    def requirements(self):
        if not self.options.system_libraries:
            self.requires("cjson/[>=1.7.15 <2]", transitive_headers=True)  # the CMake package looks for it
            self.requires("zlib/[>=1.2.11 <2]")
            if self.options.cases:
                self.requires("cmocka/[>=1.1.5 <3]", transitive_headers=True)

    def layout(self):
        cmake_layout(self)

    def generate(self):
        toolchain = CMakeToolchain(self)
        toolchain.cache_variables["REFPARITY_TESTS"] = False
        toolchain.cache_variables["REFPARITY_CASES"] = bool(self.options.cases)
        toolchain.cache_variables["REFPARITY_CBLAS"] = "OFF"  # no path of this machine in the package
        toolchain.generate()
        CMakeDeps(self).generate()

    def build(self):
        cmake = CMake(self)
        cmake.configure()
        cmake.build()

    def package(self):
        CMake(self).install()
        copy(self, "LICENSE", self.source_folder, str(Path(self.package_folder) / "licenses"))

    def package_info(self):
        # the package's own CMake files serve, as everywhere else
        self.cpp_info.set_property("cmake_find_mode", "none")
        self.cpp_info.builddirs = ["lib/cmake/refparity"]
        self.cpp_info.libs = ["refparity"]
        self.cpp_info.system_libs = ["m"] + (["cjson", "z"] if self.options.system_libraries else [])
        self.buildenv_info.prepend_path("PATH", str(Path(self.package_folder) / "bin"))
