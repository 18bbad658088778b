# Finds cmocka, 1.1.5 or newer, and defines refparity::cmocka. By header and library: 1.1.5 as
# Debian packages it exports variables only, 2.x a target.
find_path(REFPARITY_CMOCKA_INCLUDE_DIR cmocka.h)
find_library(REFPARITY_CMOCKA_LIBRARY cmocka)
include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(RefparityCmocka
  REQUIRED_VARS REFPARITY_CMOCKA_LIBRARY REFPARITY_CMOCKA_INCLUDE_DIR
  REASON_FAILURE_MESSAGE "install cmocka (Debian: libcmocka-dev)")
mark_as_advanced(REFPARITY_CMOCKA_INCLUDE_DIR REFPARITY_CMOCKA_LIBRARY)
if(RefparityCmocka_FOUND AND NOT TARGET refparity::cmocka)
  add_library(refparity::cmocka UNKNOWN IMPORTED)
  set_target_properties(refparity::cmocka PROPERTIES
    IMPORTED_LOCATION "${REFPARITY_CMOCKA_LIBRARY}"
    INTERFACE_INCLUDE_DIRECTORIES "${REFPARITY_CMOCKA_INCLUDE_DIR}")
endif()
