include(GoogleTest)

# qat_library(NAME source...): the static library qat_NAME of this folder. Headers are included from the top: "core/error.h".
function(qat_library name)
  add_library(qat_${name} STATIC ${ARGN})
  target_include_directories(qat_${name} PUBLIC ${PROJECT_SOURCE_DIR}/src ${PROJECT_SOURCE_DIR})
  target_link_libraries(qat_${name} PRIVATE qat_options)
endfunction()

# qat_test(NAME LABEL label LINK libraries... SOURCES sources...): a GoogleTest program and its ctest entries.
# QAT_SOURCE_DIR is defined for tests that read committed files (goldens, configs).
function(qat_test name)
  cmake_parse_arguments(ARG "" "LABEL;TIMEOUT" "LINK;SOURCES" ${ARGN})
  if(NOT ARG_LABEL)
    set(ARG_LABEL unit)
  endif()
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 300)
  endif()
  add_executable(${name} ${ARG_SOURCES})
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR}/tests)
  target_link_libraries(${name} PRIVATE qat_options ${ARG_LINK} GTest::gtest GTest::gmock GTest::gtest_main)
  target_compile_definitions(${name} PRIVATE QAT_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
  gtest_discover_tests(${name} PROPERTIES LABELS ${ARG_LABEL} TIMEOUT ${ARG_TIMEOUT} DISCOVERY_TIMEOUT 60)
endfunction()
