# Finds llama.cpp below REFPARITY_LLAMA_DIR and defines refparity::llama. That folder is an install
# prefix, a build tree, or a source tree with a build tree in build/; static or shared.
#
# By header and library, not by llama.cpp's own CMake package: build trees have none that works.
# Nothing is cached, so that another REFPARITY_LLAMA_DIR takes effect at once.
include(CheckCSourceCompiles)
include(FindPackageHandleStandardArgs)

set(_llama_dirs "${REFPARITY_LLAMA_DIR}" "${REFPARITY_LLAMA_DIR}/build")
set(_llama_include_dirs "")
foreach(dir IN LISTS _llama_dirs)
  list(APPEND _llama_include_dirs "${dir}/include" "${dir}/ggml/include")
  if(EXISTS "${dir}/CMakeCache.txt") # a build tree knows its sources
    file(STRINGS "${dir}/CMakeCache.txt" _llama_home REGEX "^llama.cpp_SOURCE_DIR:")
    string(REGEX REPLACE "^[^=]*=" "" _llama_home "${_llama_home}")
    list(APPEND _llama_include_dirs "${_llama_home}/include" "${_llama_home}/ggml/include")
  endif()
endforeach()
foreach(header llama ggml)
  find_path(_llama_${header}_include_dir ${header}.h PATHS ${_llama_include_dirs}
    NO_DEFAULT_PATH NO_CACHE)
endforeach()

# Backends that llama.cpp was built with: ggml links them when they are not loaded at run time.
set(_llama_libraries "")
foreach(name llama ggml ggml-cpu ggml-base ggml-blas ggml-cuda ggml-hip ggml-metal ggml-vulkan ggml-sycl)
  string(MAKE_C_IDENTIFIER "_llama_library_${name}" variable)
  unset(${variable})
  find_library(${variable} ${name} PATHS ${_llama_dirs}
    PATH_SUFFIXES lib lib64 bin src ggml/src ggml/src/${name}
    NO_DEFAULT_PATH NO_CACHE)
  if(${variable})
    list(APPEND _llama_libraries "${${variable}}")
  endif()
endforeach()

set(_llama_version "of an unknown version")
find_file(_llama_version_file llama-config-version.cmake PATHS ${_llama_dirs}
  PATH_SUFFIXES lib/cmake/llama lib64/cmake/llama NO_DEFAULT_PATH NO_CACHE)
if(_llama_version_file)
  file(STRINGS "${_llama_version_file}" _llama_version REGEX "^set[(]PACKAGE_VERSION \"")
  string(REGEX REPLACE "^[^\"]*\"([^\"]*)\".*" "\\1" _llama_version "${_llama_version}")
endif()

find_package_handle_standard_args(RefparityLlama
  REQUIRED_VARS _llama_llama_include_dir _llama_ggml_include_dir _llama_library_llama
    _llama_library_ggml _llama_library_ggml_base
  REASON_FAILURE_MESSAGE "REFPARITY_LLAMA_DIR=${REFPARITY_LLAMA_DIR} is no build or install tree \
of llama.cpp with its headers (ci/get-llamacpp.sh makes one, -DREFPARITY_LLAMA_DIR= does without)")

if(RefparityLlama_FOUND AND NOT TARGET refparity::llama)
  add_library(refparity::llama INTERFACE IMPORTED)
  set_target_properties(refparity::llama PROPERTIES
    INTERFACE_INCLUDE_DIRECTORIES "${_llama_llama_include_dir};${_llama_ggml_include_dir}")
  get_filename_component(_llama_library_dir "${_llama_library_llama}" DIRECTORY)
  target_compile_definitions(refparity::llama INTERFACE
    RP_LLAMA_VERSION="${_llama_version}" RP_LLAMA_LIBRARY_DIR="${_llama_library_dir}")
  if(_llama_library_llama MATCHES "[.]a$")
    find_package(Threads REQUIRED)
    # the C++ runtime's name is the compiler's business; OpenMP's is the build's
    set(_llama_openmp "")
    find_package(OpenMP QUIET COMPONENTS C)
    if(OpenMP_C_FOUND)
      set(_llama_openmp OpenMP::OpenMP_C)
    endif()
    target_link_libraries(refparity::llama INTERFACE -Wl,--start-group ${_llama_libraries}
      -Wl,--end-group ${_llama_openmp} Threads::Threads ${CMAKE_DL_LIBS} stdc++ m)
  else()
    # DT_RPATH serves the libraries that libllama needs, too; DT_RUNPATH would not
    target_link_libraries(refparity::llama INTERFACE ${_llama_libraries})
    target_link_options(refparity::llama INTERFACE LINKER:--disable-new-dtags)
  endif()
endif()
