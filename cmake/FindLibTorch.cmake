# Finds LibTorch without the package's own configuration, which demands a CUDA toolkit even for programs that need none.
#
# Input:  LIBTORCH_ROOT  a folder with include/ and lib/: the `torch` folder of a Python environment or an unpacked LibTorch.
#         Default: .venv of this project (scripts/setup makes it), then the environment variable LIBTORCH_ROOT.
#         LIBTORCH_NCCL_INCLUDE_DIRS  folders with the headers of NCCL and CUDA that this LibTorch was built with. Default:
#         where pip puts those of a CUDA build, nvidia/*/include beside the `torch` folder.
# Output: the target LibTorch::LibTorch; LibTorch::NCCL, where LibTorch has CUDA and the headers are complete.
set(LIBTORCH_ROOT "$ENV{LIBTORCH_ROOT}" CACHE PATH "Folder of LibTorch (with include/ and lib/)")
file(GLOB _libtorch_venv ${PROJECT_SOURCE_DIR}/.venv/lib/python3*/site-packages/torch)

find_path(LIBTORCH_INCLUDE_DIR ATen/core/Tensor.h
  HINTS ${LIBTORCH_ROOT} ${_libtorch_venv} PATH_SUFFIXES include NO_DEFAULT_PATH)
find_library(LIBTORCH_CPU_LIBRARY torch_cpu
  HINTS ${LIBTORCH_ROOT} ${_libtorch_venv} PATH_SUFFIXES lib NO_DEFAULT_PATH)
find_library(LIBTORCH_C10_LIBRARY c10
  HINTS ${LIBTORCH_ROOT} ${_libtorch_venv} PATH_SUFFIXES lib NO_DEFAULT_PATH)
foreach(_part torch_cuda c10_cuda)
  find_library(LIBTORCH_${_part}_LIBRARY ${_part}
    HINTS ${LIBTORCH_ROOT} ${_libtorch_venv} PATH_SUFFIXES lib NO_DEFAULT_PATH)
endforeach()
get_filename_component(_libtorch_packages "${LIBTORCH_INCLUDE_DIR}/../.." ABSOLUTE)
file(GLOB _libtorch_nvidia ${_libtorch_packages}/nvidia/*/include ${_libtorch_packages}/nvidia/*/include/cccl)
set(LIBTORCH_NCCL_INCLUDE_DIRS "${_libtorch_nvidia}" CACHE STRING "Folders of the NCCL and CUDA headers of LibTorch")

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(LibTorch
  REQUIRED_VARS LIBTORCH_CPU_LIBRARY LIBTORCH_C10_LIBRARY LIBTORCH_INCLUDE_DIR
  REASON_FAILURE_MESSAGE "run scripts/setup, or pass -DLIBTORCH_ROOT=FOLDER (or -DQAT_WITH_TORCH=OFF)")

if(LibTorch_FOUND AND NOT TARGET LibTorch::LibTorch)
  add_library(LibTorch::LibTorch INTERFACE IMPORTED)
  target_include_directories(LibTorch::LibTorch SYSTEM INTERFACE
    ${LIBTORCH_INCLUDE_DIR} ${LIBTORCH_INCLUDE_DIR}/torch/csrc/api/include)
  get_filename_component(_libtorch_lib ${LIBTORCH_CPU_LIBRARY} DIRECTORY)
  target_link_libraries(LibTorch::LibTorch INTERFACE ${LIBTORCH_CPU_LIBRARY} ${LIBTORCH_C10_LIBRARY})
  if(LIBTORCH_torch_cuda_LIBRARY AND LIBTORCH_c10_cuda_LIBRARY)
    # Nothing refers to the CUDA libraries by symbol: without this the linker drops them and CUDA is never registered.
    target_link_libraries(LibTorch::LibTorch INTERFACE
      -Wl,--no-as-needed ${LIBTORCH_c10_cuda_LIBRARY} ${LIBTORCH_torch_cuda_LIBRARY} -Wl,--as-needed)
    # What c10d's header of NCCL includes. Only LibTorch's own versions will do: their structs are parts of its classes.
    set(_libtorch_missing)
    foreach(_header nccl.h cuda_runtime_api.h crt/host_config.h nv/target cublas_v2.h cusolverDn.h cusparse.h)
      set(_folder _folder-NOTFOUND)
      find_path(_folder ${_header} PATHS ${LIBTORCH_NCCL_INCLUDE_DIRS} NO_DEFAULT_PATH NO_CACHE)
      if(NOT _folder)
        list(APPEND _libtorch_missing ${_header})
      endif()
    endforeach()
    if(_libtorch_missing)
      list(JOIN _libtorch_missing ", " _libtorch_missing)
      message(STATUS "LibTorch has CUDA, but these headers for NCCL are not beside it: ${_libtorch_missing}. Gradients of "
                     "several GPUs will be added by the CPU. To have NCCL add them: pip install 'cuda-toolkit[cccl,crt]' in "
                     "LibTorch's Python environment, or -DLIBTORCH_NCCL_INCLUDE_DIRS=FOLDERS, in a fresh build folder")
    else()
      message(STATUS "LibTorch has CUDA and NCCL: gradients of several GPUs will be added by NCCL")
      add_library(LibTorch::NCCL INTERFACE IMPORTED)
      target_include_directories(LibTorch::NCCL SYSTEM INTERFACE ${LIBTORCH_NCCL_INCLUDE_DIRS})
      target_compile_definitions(LibTorch::NCCL INTERFACE QAT_HAS_NCCL)
    endif()
  endif()
  # Without OpenMP at::parallel_for() runs everything on one thread. The runtime must be LibTorch's own: a second one
  # would have threads and settings of its own.
  file(GLOB _libtorch_openmp ${_libtorch_lib}/libgomp*.so* ${_libtorch_lib}/libiomp5.so)
  if(_libtorch_openmp)
    list(GET _libtorch_openmp 0 _libtorch_openmp)
    target_compile_options(LibTorch::LibTorch INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-fopenmp>)
    target_link_libraries(LibTorch::LibTorch INTERFACE ${_libtorch_openmp})
  else()
    find_package(OpenMP REQUIRED COMPONENTS CXX)
    target_link_libraries(LibTorch::LibTorch INTERFACE OpenMP::OpenMP_CXX)
  endif()
  # The program must find these libraries from anywhere, in the build folder and after `cmake --install`.
  list(APPEND CMAKE_BUILD_RPATH ${_libtorch_lib})
  list(APPEND CMAKE_INSTALL_RPATH ${_libtorch_lib})
endif()
mark_as_advanced(LIBTORCH_INCLUDE_DIR LIBTORCH_CPU_LIBRARY LIBTORCH_C10_LIBRARY LIBTORCH_torch_cuda_LIBRARY LIBTORCH_c10_cuda_LIBRARY
  LIBTORCH_NCCL_INCLUDE_DIRS)
