# cmake --install: the library, dump.h and the other public headers, the tool, what
# refparity_add_matrix() needs, the recorder, a CMake package and a pkg-config file.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set(_package "${CMAKE_INSTALL_LIBDIR}/cmake/refparity")
set(_recorder "${CMAKE_INSTALL_DATADIR}/refparity/recorder")
set(REFPARITY_RECORDER "python3 ${PROJECT_SOURCE_DIR}/fixtures/hf_reference.py"
  CACHE INTERNAL "what records a fixture")

install(TARGETS refparity-core refparity-cases refparity-tool EXPORT refparity
  ARCHIVE DESTINATION "${CMAKE_INSTALL_LIBDIR}"
  RUNTIME DESTINATION "${CMAKE_INSTALL_BINDIR}")
install(DIRECTORY framework/include/refparity cases/include/refparity
  DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}")
install(EXPORT refparity FILE refparityTargets.cmake NAMESPACE refparity::
  DESTINATION "${_package}")
install(FILES fixtures/hf_reference.py fixtures/hf_model.py fixtures/fixture_file.py
  fixtures/slot_hooks.py fixtures/experts.py fixtures/streamed.py fixtures/gguf_weights.py
  fixtures/weights_sketch.py fixtures/requirements.txt
  fixtures/requirements-torch.txt DESTINATION "${_recorder}")
install(FILES fixtures/engines/refparity_dump.py DESTINATION "${CMAKE_INSTALL_DATADIR}/refparity/python")
install(FILES matrix/matrix.schema.json DESTINATION "${CMAKE_INSTALL_DATADIR}/refparity")
install(FILES LICENSE DESTINATION "${CMAKE_INSTALL_DOCDIR}")

set(_cblas)
set(_cblas_is_linked FALSE)
if(RefparityCBLAS_FOUND AND NOT RefparityCBLAS_IS_LOADED)
  set(_cblas_is_linked TRUE)
  install(FILES ctest/FindRefparityCBLAS.cmake DESTINATION "${_package}")
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
  ctest/FindRefparityCJSON.cmake ctest/FindRefparityCmocka.cmake ctest/RefparityMatrix.cmake
  cases/case.c.in DESTINATION "${_package}")

configure_file(ctest/refparity.pc.in "${PROJECT_BINARY_DIR}/refparity.pc" @ONLY)
install(FILES "${PROJECT_BINARY_DIR}/refparity.pc"
  DESTINATION "${CMAKE_INSTALL_LIBDIR}/pkgconfig")
