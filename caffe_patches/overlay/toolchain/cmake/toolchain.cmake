# Settings for today's libraries that CMakeLists.txt lacks.

# protobuf 22, CUDA 13 and Boost need C++17; Caffe does not compile as C++20.
if(NOT CMAKE_CXX_STANDARD)
  set(CMAKE_CXX_STANDARD 17)
endif()

# From 22 on, protobuf's headers call Abseil, which must be linked, too. Appends
# Abseil's libraries to the given list, if protobuf requires them.
macro(toolchain_append_abseil libraries)
  find_package(PkgConfig QUIET)
  if(PKG_CONFIG_FOUND)
    pkg_check_modules(TOOLCHAIN_PROTOBUF QUIET protobuf)
    foreach(__name ${TOOLCHAIN_PROTOBUF_LIBRARIES})
      if(__name MATCHES "^absl_")
        find_library(TOOLCHAIN_${__name} ${__name} HINTS ${TOOLCHAIN_PROTOBUF_LIBRARY_DIRS})
        list(APPEND ${libraries} PUBLIC ${TOOLCHAIN_${__name}})
      endif()
    endforeach()
  endif()
endmacro()

# Replaces Caffe's list of GPU architectures with those that this nvcc supports.
macro(toolchain_known_gpu_archs)
  execute_process(COMMAND "${CUDA_NVCC_EXECUTABLE}" --list-gpu-arch
                  OUTPUT_VARIABLE __listed ERROR_QUIET)
  string(REGEX MATCHALL "[0-9]+" __listed "${__listed}")
  if(__listed)
    string(REPLACE ";" " " Caffe_known_gpu_archs "${__listed}")
  endif()
endmacro()

# Since cuDNN 8, a separate header has its version.
macro(toolchain_read_cudnn_version include contents)
  if(EXISTS "${include}/cudnn_version.h")
    file(READ "${include}/cudnn_version.h" ${contents})
  endif()
endmacro()
