# cmake --install: the library, dump.h and the other public headers, the tool with its man pages and
# completions, what refparity_add_matrix() needs, the recorder, refparity_dump.py, a CMake package and
# a pkg-config file. Components: tool, python, dev; a Python wheel has the first two, in its own places.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set(_package "${CMAKE_INSTALL_LIBDIR}/cmake/refparity")
set(_data "${CMAKE_INSTALL_DATADIR}")
set(_bin "${CMAKE_INSTALL_BINDIR}")
set(_recorder "${_data}/refparity/recorder")
set(_python "${_data}/refparity/python")
if(SKBUILD) # scikit-build-core, see pyproject.toml: relative paths are below site-packages
  set(_data "${SKBUILD_DATA_DIR}/share")
  set(_bin "${SKBUILD_SCRIPTS_DIR}")
  set(_recorder refparity_record)
  set(_python .)
  install(FILES ci/package/wheel/__init__.py DESTINATION "${_recorder}" COMPONENT python)
endif()
set(REFPARITY_RECORDER "${PROJECT_SOURCE_DIR}/ci/record.sh"
  CACHE INTERNAL "what records a fixture")

# ---- tool ----

install(TARGETS refparity-tool EXPORT refparity RUNTIME DESTINATION "${_bin}" COMPONENT tool)
install(FILES ci/package/completion/refparity.bash RENAME refparity
  DESTINATION "${_data}/bash-completion/completions" COMPONENT tool)
install(FILES ci/package/completion/_refparity
  DESTINATION "${_data}/zsh/site-functions" COMPONENT tool)
install(FILES ci/package/completion/refparity.fish
  DESTINATION "${_data}/fish/vendor_completions.d" COMPONENT tool)
install(FILES matrix/matrix.schema.json DESTINATION "${_data}/refparity" COMPONENT tool)
if(NOT SKBUILD) # a wheel has it among its metadata
  install(FILES LICENSE DESTINATION "${CMAKE_INSTALL_DOCDIR}" COMPONENT tool)
endif()

# Man pages are what the tool says with --help; without help2man there are none.
find_program(REFPARITY_HELP2MAN help2man)
mark_as_advanced(REFPARITY_HELP2MAN)
if(REFPARITY_HELP2MAN AND NOT CMAKE_CROSSCOMPILING AND PROJECT_IS_TOP_LEVEL)
  set(_man "${PROJECT_BINARY_DIR}/man")
  add_custom_command(OUTPUT "${_man}/made"
    COMMAND "${CMAKE_COMMAND}" -E rm -rf "${_man}"
    COMMAND "${PROJECT_SOURCE_DIR}/ci/package/man.sh" $<TARGET_FILE:refparity-tool> "${_man}"
    COMMAND "${CMAKE_COMMAND}" -E touch "${_man}/made"
    DEPENDS refparity-tool "${PROJECT_SOURCE_DIR}/ci/package/man.sh"
    COMMENT "Writing man pages" VERBATIM)
  add_custom_target(refparity-man ALL DEPENDS "${_man}/made")
  install(DIRECTORY "${_man}/" DESTINATION "${_data}/man/man1" COMPONENT tool
    FILES_MATCHING PATTERN "*.1")
elseif(PROJECT_IS_TOP_LEVEL)
  message(STATUS "No man pages: help2man (Debian: help2man) makes them")
endif()

# ---- python ----

install(FILES fixtures/hf_reference.py fixtures/hf_model.py fixtures/fixture_file.py
  fixtures/slot_hooks.py fixtures/experts.py fixtures/streamed.py fixtures/gguf_weights.py
  fixtures/weights_sketch.py fixtures/hf_replay.py fixtures/dump_reader.py fixtures/fp32_noise.py
  fixtures/hf_layers.py fixtures/layer_slots.py fixtures/requirements.txt
  fixtures/requirements-torch.txt DESTINATION "${_recorder}" COMPONENT python)
install(FILES fixtures/engines/refparity_dump.py DESTINATION "${_python}" COMPONENT python)

# ---- dev ----

if(SKBUILD)
  return()
endif()
install(TARGETS refparity-core EXPORT refparity
  ARCHIVE DESTINATION "${CMAKE_INSTALL_LIBDIR}" COMPONENT dev)
install(DIRECTORY framework/include/refparity
  DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}" COMPONENT dev)
if(REFPARITY_CASES)
  install(TARGETS refparity-cases EXPORT refparity
    ARCHIVE DESTINATION "${CMAKE_INSTALL_LIBDIR}" COMPONENT dev)
  install(DIRECTORY cases/include/refparity
    DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}" COMPONENT dev)
  install(FILES ctest/FindRefparityCmocka.cmake ctest/RefparityMatrix.cmake cases/case.c.in
    DESTINATION "${_package}" COMPONENT dev)
endif()
install(EXPORT refparity FILE refparityTargets.cmake NAMESPACE refparity::
  DESTINATION "${_package}" COMPONENT dev)

set(_cblas)
set(_cblas_is_linked FALSE)
if(RefparityCBLAS_FOUND AND NOT RefparityCBLAS_IS_LOADED)
  set(_cblas_is_linked TRUE)
  install(FILES ctest/FindRefparityCBLAS.cmake DESTINATION "${_package}" COMPONENT dev)
  set(_cblas " ${REFPARITY_CBLAS_LIBRARY}")
elseif(RefparityCBLAS_FOUND AND CMAKE_DL_LIBS)
  set(_cblas " -l${CMAKE_DL_LIBS}")
endif()
configure_package_config_file(ctest/refparityConfig.cmake.in
  "${PROJECT_BINARY_DIR}/refparityConfig.cmake" INSTALL_DESTINATION "${_package}"
  PATH_VARS _recorder)
write_basic_package_version_file("${PROJECT_BINARY_DIR}/refparityConfigVersion.cmake"
  COMPATIBILITY SameMinorVersion)
install(FILES "${PROJECT_BINARY_DIR}/refparityConfig.cmake"
  "${PROJECT_BINARY_DIR}/refparityConfigVersion.cmake"
  ctest/FindRefparityCJSON.cmake DESTINATION "${_package}" COMPONENT dev)

configure_file(ctest/refparity.pc.in "${PROJECT_BINARY_DIR}/refparity.pc" @ONLY)
install(FILES "${PROJECT_BINARY_DIR}/refparity.pc"
  DESTINATION "${CMAKE_INSTALL_LIBDIR}/pkgconfig" COMPONENT dev)
