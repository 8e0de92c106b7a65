# Every dependency and the version this project is tested with (third_party/README.md says where each may be included).
find_package(nlohmann_json 3.11 REQUIRED)   # Debian nlohmann-json3-dev
find_package(OpenSSL 3 REQUIRED)            # Debian libssl-dev
find_package(Eigen3 3.4 REQUIRED NO_MODULE) # Debian libeigen3-dev
find_package(HDF5 1.10 REQUIRED COMPONENTS C) # Debian libhdf5-dev
find_package(cxxopts REQUIRED)              # Debian libcxxopts-dev
find_package(hwy 1.0 REQUIRED)              # Debian libhwy-dev
find_package(ZLIB 1.2 REQUIRED)             # Debian zlib1g-dev
find_path(FLATBUFFERS_INCLUDE_DIR flatbuffers/flatbuffers.h REQUIRED) # Debian libflatbuffers-dev
find_program(FLATC flatc REQUIRED)          # Debian flatbuffers-compiler
find_package(Threads REQUIRED)
if(QAT_BUILD_TESTS)
  find_package(GTest 1.12 REQUIRED)         # Debian libgtest-dev libgmock-dev
  find_package(benchmark REQUIRED)          # Debian libbenchmark-dev
endif()
if(QAT_WITH_TORCH)
  find_package(LibTorch REQUIRED)           # PyPI torch, see scripts/setup
  find_path(GLOO_INCLUDE_DIR gloo/algorithm.h REQUIRED) # Debian libgloo-dev: declarations only, LibTorch has the code
endif()
