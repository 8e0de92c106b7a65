# One interface target carries the options of every target of this project.
add_library(qat_options INTERFACE)
target_compile_options(qat_options INTERFACE
  -Wall -Wextra -Wshadow -Wconversion -Wnon-virtual-dtor -Werror
  # A fused multiply-add rounds once where the grid rounds twice; contraction would move codes at ties.
  -ffp-contract=off)
# g++ 12 warns wrongly about std::string at -O3.
set(CMAKE_CXX_FLAGS_RELEASE "-O2 -DNDEBUG")
# Line numbers for the sanitizers' reports, and little work for the compiler.
set(CMAKE_CXX_FLAGS_DEBUG "-O1 -g1")
if(QAT_SANITIZE)
  add_compile_options(-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer)
  add_link_options(-fsanitize=address,undefined)
  # Under sanitizers g++ 12 sees uninitialized values where there are none; the release build keeps warnings as errors.
  target_compile_options(qat_options INTERFACE -Wno-error)
endif()

find_program(QAT_CCACHE ccache)
if(QAT_CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${QAT_CCACHE})
endif()
