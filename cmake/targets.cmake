# How this project makes targets: the libraries it is built on, and the flags of its own code.
find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)
find_package(OpenSSL REQUIRED)
find_package(Protobuf REQUIRED)
find_package(absl REQUIRED)
find_package(gRPC CONFIG REQUIRED)
find_package(spdlog REQUIRED)
pkg_check_modules(XXHASH REQUIRED IMPORTED_TARGET libxxhash)
# Not every build of xxHash has what chooses by the processor; Debian's for x86-64 has.
include(CheckSymbolExists)
set(CMAKE_REQUIRED_LIBRARIES PkgConfig::XXHASH)
check_symbol_exists(XXH3_128bits_dispatch xxh_x86dispatch.h CKPT_XXH_DISPATCH)
unset(CMAKE_REQUIRED_LIBRARIES)
pkg_check_modules(ROCKSDB REQUIRED IMPORTED_TARGET rocksdb)
pkg_check_modules(JEMALLOC REQUIRED IMPORTED_TARGET jemalloc)
pkg_check_modules(LIBZIP REQUIRED IMPORTED_TARGET libzip)
pkg_check_modules(LIBDEFLATE REQUIRED IMPORTED_TARGET libdeflate)
find_package(ZLIB REQUIRED)
find_package(CLI11 REQUIRED)
find_package(nlohmann_json REQUIRED)
if(CKPT_BUILD_TESTS)
  find_package(GTest REQUIRED)
  find_package(Python3 3.11 REQUIRED COMPONENTS Interpreter)
  include(GoogleTest)
endif()

find_program(CCACHE ccache)
if(CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CCACHE})
endif()

# The flags of our own code. Generated code and libraries are SYSTEM to it.
function(ckpt_own_code target)
  target_compile_options(${target} PRIVATE -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Werror
    $<$<CXX_COMPILER_ID:Clang>:-Wthread-safety>)
  target_include_directories(${target} PRIVATE ${PROJECT_SOURCE_DIR})
  if(CKPT_SANITIZE)
    target_compile_options(${target} PRIVATE -fsanitize=${CKPT_SANITIZE} -fno-sanitize-recover=undefined)
    target_link_options(${target} PRIVATE -fsanitize=${CKPT_SANITIZE})
  endif()
endfunction()

# ckpt_library(NAME SOURCES a.cc … DEPS lib …)
function(ckpt_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS" ${ARGN})
  add_library(${name} STATIC ${ARG_SOURCES})
  target_link_libraries(${name} PUBLIC ${ARG_DEPS})
  ckpt_own_code(${name})
endfunction()

# ckpt_executable(NAME SOURCES a.cc … DEPS lib …)
function(ckpt_executable name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE ${ARG_DEPS})
  ckpt_own_code(${name})
endfunction()

# ckpt_test(NAME SOURCES a_test.cc … DEPS lib … LABEL unit|integration|e2e|crash|fuzz [TIMEOUT seconds])
function(ckpt_test name)
  if(NOT CKPT_BUILD_TESTS)
    return()
  endif()
  cmake_parse_arguments(ARG "" "LABEL;TIMEOUT" "SOURCES;DEPS" ${ARGN})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 120)
  endif()
  ckpt_executable(${name} SOURCES ${ARG_SOURCES} DEPS ${ARG_DEPS} GTest::gmock_main)
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/tests)
  target_compile_options(${name} PRIVATE -O1)  # a third less to compile; what is tested is built as ever
  gtest_discover_tests(${name} DISCOVERY_MODE PRE_TEST PROPERTIES LABELS ${ARG_LABEL} TIMEOUT ${ARG_TIMEOUT})
endfunction()

set(CKPT_PYTHON ${PROJECT_SOURCE_DIR}/.venv/bin/python CACHE FILEPATH "Python with tests/requirements.txt installed")

# ckpt_python_test(NAME SCRIPT x_test.py LABEL … [TIMEOUT seconds] [ARGS …] [ENVIRONMENT NAME=VALUE …] [SERIAL] [VENV]): a
# test that needs nothing but Python's own library or, with VENV, what tests/requirements.txt lists. Exit 77 says that this
# machine cannot run it.
function(ckpt_python_test name)
  cmake_parse_arguments(ARG "SERIAL;VENV" "SCRIPT;LABEL;TIMEOUT" "ARGS;ENVIRONMENT" ${ARGN})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 120)
  endif()
  set(python Python3::Interpreter)
  if(ARG_VENV)
    set(python ${CKPT_PYTHON})
  endif()
  add_test(NAME ${name} COMMAND ${python} -B ${CMAKE_CURRENT_SOURCE_DIR}/${ARG_SCRIPT} ${ARG_ARGS})
  set_tests_properties(${name} PROPERTIES LABELS ${ARG_LABEL} TIMEOUT ${ARG_TIMEOUT} SKIP_RETURN_CODE 77
    RUN_SERIAL ${ARG_SERIAL} ENVIRONMENT "${ARG_ENVIRONMENT}")
endfunction()

# ckpt_pytest(NAME SCRIPT test_x.py LABEL … [TIMEOUT seconds] [ENVIRONMENT NAME=VALUE …]): a file of pytest tests, with what
# tests/requirements.txt lists.
function(ckpt_pytest name)
  cmake_parse_arguments(ARG "" "SCRIPT;LABEL;TIMEOUT" "ENVIRONMENT" ${ARGN})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 300)
  endif()
  add_test(NAME ${name} COMMAND ${CKPT_PYTHON} -m pytest -q -p no:cacheprovider ${CMAKE_CURRENT_SOURCE_DIR}/${ARG_SCRIPT})
  set_tests_properties(${name} PROPERTIES LABELS ${ARG_LABEL} TIMEOUT ${ARG_TIMEOUT}
    ENVIRONMENT "PYTHONDONTWRITEBYTECODE=1;${ARG_ENVIRONMENT}")
endfunction()
