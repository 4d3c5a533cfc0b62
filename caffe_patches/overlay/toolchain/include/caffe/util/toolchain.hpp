#ifndef CAFFE_UTIL_TOOLCHAIN_HPP_
#define CAFFE_UTIL_TOOLCHAIN_HPP_

// Defines names that today's libraries have dropped, for the few sources that
// use them. They are macros: include this file after all other headers, and
// never from a header.

#ifdef USE_OPENCV
#include <opencv2/core/version.hpp>
#if CV_VERSION_MAJOR >= 4
#include <opencv2/imgcodecs.hpp>
#define CV_LOAD_IMAGE_COLOR cv::IMREAD_COLOR
#define CV_LOAD_IMAGE_GRAYSCALE cv::IMREAD_GRAYSCALE
#endif  // CV_VERSION_MAJOR
#endif  // USE_OPENCV

// protobuf 3.6 dropped the second argument, the limit at which to warn.
#include <google/protobuf/io/coded_stream.h>
#define SetTotalBytesLimit(limit, warning) SetTotalBytesLimit(limit)

#ifndef CPU_ONLY
#include <cuda_runtime.h>  // NOLINT(build/include_alpha)
#if CUDART_VERSION >= 13000
/// The device's properties, including those that CUDA 13 made attributes.
struct CaffeDeviceProp : public cudaDeviceProp {
  int clockRate;
  int deviceOverlap;
  int kernelExecTimeoutEnabled;
};

inline cudaError_t CaffeGetDeviceProperties(CaffeDeviceProp* prop,
    const int device) {
  cudaError_t error = cudaGetDeviceProperties(prop, device);
  if (error == cudaSuccess) {
    error = cudaDeviceGetAttribute(&prop->clockRate, cudaDevAttrClockRate,
        device);
  }
  if (error == cudaSuccess) {
    error = cudaDeviceGetAttribute(&prop->kernelExecTimeoutEnabled,
        cudaDevAttrKernelExecTimeout, device);
  }
  prop->deviceOverlap = error == cudaSuccess && prop->asyncEngineCount > 0;
  return error;
}

#undef cudaGetDeviceProperties
#define cudaGetDeviceProperties CaffeGetDeviceProperties
#define cudaDeviceProp CaffeDeviceProp
#endif  // CUDART_VERSION
#endif  // CPU_ONLY

#endif  // CAFFE_UTIL_TOOLCHAIN_HPP_
