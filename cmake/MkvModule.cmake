# Warnings and sanitizers for our own code, kept off the packages' headers.
add_library(mkv_flags INTERFACE)
target_compile_options(mkv_flags INTERFACE -Wall -Wextra -Wpedantic -Wshadow -Wconversion
                       # GCC 12 warns of string operations that cannot overlap (its bug 105651).
                       $<$<CXX_COMPILER_ID:GNU>:-Wno-restrict>
                       $<$<BOOL:${MKV_WERROR}>:-Werror>)
if(MKV_SANITIZE)
  target_compile_options(mkv_flags INTERFACE -fsanitize=${MKV_SANITIZE} -fno-omit-frame-pointer
                         -fno-sanitize-recover=all)
  target_link_options(mkv_flags INTERFACE -fsanitize=${MKV_SANITIZE})
endif()

# mkv_module(NAME DEPS...): the static library mkv_NAME from src/NAME/*.cc.
function(mkv_module name)
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/${name}/*.cc)
  if(sources)
    add_library(mkv_${name} STATIC ${sources})
    target_include_directories(mkv_${name} PUBLIC ${CMAKE_SOURCE_DIR}/src)
    target_link_libraries(mkv_${name} PUBLIC ${ARGN} PRIVATE mkv_flags)
  else()
    add_library(mkv_${name} INTERFACE)
    target_include_directories(mkv_${name} INTERFACE ${CMAKE_SOURCE_DIR}/src)
    target_link_libraries(mkv_${name} INTERFACE ${ARGN})
  endif()
endfunction()

# mkv_tests(NAME DEPS...): the test program test_NAME from tests/NAME/*_test.cc.
function(mkv_tests name)
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/tests/${name}/*.cc)
  if(sources)
    add_executable(test_${name} ${sources})
    target_link_libraries(test_${name} PRIVATE ${ARGN} GTest::gmock_main mkv_flags)
    target_include_directories(test_${name} PRIVATE ${CMAKE_SOURCE_DIR}/tests)
    # Most of the time goes to what templates of headers become, nearly the same in each file: so
    # four are compiled as one, but in the build that one works on.
    if(NOT CMAKE_BUILD_TYPE STREQUAL "Debug")
      set_target_properties(test_${name} PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 4)
    endif()
    # Compiled in two thirds of the time of -O3, and with sanitizers in two thirds of that of -O1.
    target_compile_options(test_${name} PRIVATE $<$<CONFIG:Release>:-O1>)
    if(MKV_SANITIZE)
      target_compile_options(test_${name} PRIVATE -O0)
    endif()
    target_compile_definitions(test_${name} PRIVATE MKV_SOURCE_DIR="${CMAKE_SOURCE_DIR}"
                               MKV_BIN_DIR="${CMAKE_BINARY_DIR}/bin")
    gtest_discover_tests(test_${name} DISCOVERY_TIMEOUT 60 PROPERTIES LABELS ${name} TIMEOUT 600)
  endif()
endfunction()
