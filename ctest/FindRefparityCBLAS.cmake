# Finds a CBLAS that is faster than the library's own loop, OpenBLAS or BLIS, and defines
# refparity::cblas. A shared one is loaded when it is first needed: RefparityCBLAS_IS_LOADED, and
# RefparityCBLAS_SONAME where it can be told. Another one, such as MKL: set REFPARITY_CBLAS_LIBRARY and
# REFPARITY_CBLAS_INCLUDE_DIR. Not for the reference BLAS, which is slower than the loop.
find_package(PkgConfig QUIET)
if(PkgConfig_FOUND)
  pkg_check_modules(_refparity_openblas QUIET openblas)
endif()
find_library(REFPARITY_CBLAS_LIBRARY NAMES openblas blis
  HINTS ${_refparity_openblas_LIBRARY_DIRS})
get_filename_component(_refparity_cblas_dir "${REFPARITY_CBLAS_LIBRARY}" DIRECTORY)
find_path(REFPARITY_CBLAS_INCLUDE_DIR cblas.h
  HINTS ${_refparity_openblas_INCLUDE_DIRS} "${_refparity_cblas_dir}/../include"
  PATH_SUFFIXES openblas blis)

# A header and a library of different origin, or a static library that lacks its own dependencies,
# shows here and not when the project is linked.
if(REFPARITY_CBLAS_LIBRARY AND REFPARITY_CBLAS_INCLUDE_DIR)
  include(CheckCSourceCompiles)
  include(CMakePushCheckState)
  cmake_push_check_state(RESET)
  set(CMAKE_REQUIRED_QUIET TRUE)
  set(CMAKE_REQUIRED_INCLUDES "${REFPARITY_CBLAS_INCLUDE_DIR}")
  set(CMAKE_REQUIRED_LIBRARIES "${REFPARITY_CBLAS_LIBRARY}")
  check_c_source_compiles("#include <cblas.h>
    int main(void) { float a = 1.0f; cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, 1, 1, 1,
      1.0f, &a, 1, &a, 1, 0.0f, &a, 1); return 0; }" REFPARITY_CBLAS_LINKS)
  check_c_source_compiles("#include <cblas.h>
    int main(void) { openblas_set_num_threads(1); return 0; }" REFPARITY_CBLAS_IS_OPENBLAS)
  cmake_pop_check_state()
endif()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(RefparityCBLAS
  REQUIRED_VARS REFPARITY_CBLAS_LIBRARY REFPARITY_CBLAS_INCLUDE_DIR REFPARITY_CBLAS_LINKS
  REASON_FAILURE_MESSAGE "install OpenBLAS (Debian: libopenblas-dev), or use REFPARITY_CBLAS=OFF")
mark_as_advanced(REFPARITY_CBLAS_INCLUDE_DIR REFPARITY_CBLAS_LIBRARY)
set(RefparityCBLAS_IS_LOADED FALSE)
set(RefparityCBLAS_SONAME "")
if(RefparityCBLAS_FOUND AND REFPARITY_CBLAS_LIBRARY MATCHES "[.]so([.0-9]*)$")
  set(RefparityCBLAS_IS_LOADED TRUE)
  if(CMAKE_OBJDUMP)
    execute_process(COMMAND "${CMAKE_OBJDUMP}" -p "${REFPARITY_CBLAS_LIBRARY}"
      OUTPUT_VARIABLE _refparity_soname ERROR_QUIET)
    if(_refparity_soname MATCHES "SONAME +([^ \n]+)")
      set(RefparityCBLAS_SONAME "${CMAKE_MATCH_1}")
    endif()
  endif()
endif()
if(RefparityCBLAS_FOUND AND NOT TARGET refparity::cblas)
  add_library(refparity::cblas UNKNOWN IMPORTED)
  set_target_properties(refparity::cblas PROPERTIES
    IMPORTED_LOCATION "${REFPARITY_CBLAS_LIBRARY}"
    INTERFACE_INCLUDE_DIRECTORIES "${REFPARITY_CBLAS_INCLUDE_DIR}")
endif()
