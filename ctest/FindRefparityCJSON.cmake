# Finds cJSON and defines refparity::cjson. By header and library: distributions' own CMake files
# for it differ in what they define.
find_path(REFPARITY_CJSON_INCLUDE_DIR cjson/cJSON.h)
find_library(REFPARITY_CJSON_LIBRARY cjson)
include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(RefparityCJSON
  REQUIRED_VARS REFPARITY_CJSON_LIBRARY REFPARITY_CJSON_INCLUDE_DIR
  REASON_FAILURE_MESSAGE "install cJSON (Debian: libcjson-dev)")
mark_as_advanced(REFPARITY_CJSON_INCLUDE_DIR REFPARITY_CJSON_LIBRARY)
if(RefparityCJSON_FOUND AND NOT TARGET refparity::cjson)
  add_library(refparity::cjson UNKNOWN IMPORTED)
  set_target_properties(refparity::cjson PROPERTIES
    IMPORTED_LOCATION "${REFPARITY_CJSON_LIBRARY}"
    INTERFACE_INCLUDE_DIRECTORIES "${REFPARITY_CJSON_INCLUDE_DIR}")
endif()
