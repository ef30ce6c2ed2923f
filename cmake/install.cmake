# The client library as a CMake package: find_package(ckpt) gives ckpt::ckpt and ckpt::formats.
#   cmake --install BUILD --component client --prefix PREFIX
include(CMakePackageConfigHelpers)

set_target_properties(ckpt_proto PROPERTIES EXPORT_NAME proto)
set_target_properties(ckpt_grpc PROPERTIES EXPORT_NAME grpc)
set_target_properties(ckpt_base PROPERTIES EXPORT_NAME base)
set_target_properties(ckpt_formats PROPERTIES EXPORT_NAME formats)
target_compile_features(ckpt_base PUBLIC cxx_std_20)  # and so of all who use the package
install(TARGETS ckpt ckpt_formats ckpt_base ckpt_grpc ckpt_proto EXPORT ckpt
  ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT client)

install(DIRECTORY client/include/ckpt DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} COMPONENT client FILES_MATCHING PATTERN *.h)
# The messages that the public headers name.
install(FILES ${PROJECT_BINARY_DIR}/proto/gen/ckpt/v1/state.pb.h ${PROJECT_BINARY_DIR}/proto/gen/ckpt/v1/checkpoint.pb.h
  DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/ckpt/v1 COMPONENT client)

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/ckpt)
install(EXPORT ckpt NAMESPACE ckpt:: FILE ckptTargets.cmake DESTINATION ${package_dir} COMPONENT client)
# The same from the build folder, for the Python package.
export(EXPORT ckpt NAMESPACE ckpt:: FILE ${PROJECT_BINARY_DIR}/ckptTargets.cmake)
configure_file(cmake/ckptConfig.cmake ${PROJECT_BINARY_DIR}/ckptConfig.cmake COPYONLY)
write_basic_package_version_file(${PROJECT_BINARY_DIR}/ckptConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES cmake/ckptConfig.cmake ${PROJECT_BINARY_DIR}/ckptConfigVersion.cmake
  DESTINATION ${package_dir} COMPONENT client)
