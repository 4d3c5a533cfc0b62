#ifndef CAFFE_UTIL_TOOLCHAIN_CUDNN_HPP_
#define CAFFE_UTIL_TOOLCHAIN_CUDNN_HPP_

#include <cudnn.h>

// Calls that cuDNN 8 dropped, implemented by those that replaced them.
#if CUDNN_MAJOR >= 8

enum CaffeConvolutionPreference {
  CUDNN_CONVOLUTION_FWD_SPECIFY_WORKSPACE_LIMIT,
  CUDNN_CONVOLUTION_BWD_FILTER_SPECIFY_WORKSPACE_LIMIT,
  CUDNN_CONVOLUTION_BWD_DATA_SPECIFY_WORKSPACE_LIMIT
};

/**
 * @brief The fastest algorithm that works and fits into the workspace.
 *
 * @param query one of the calls ..._v7, which list algorithms by expected speed
 * @param a, b, conv, c the descriptors that query takes, in its order
 */
template <typename A, typename B, typename C, typename Result,
    typename Algorithm>
inline cudnnStatus_t CaffePickAlgorithm(
    cudnnStatus_t (*query)(cudnnHandle_t, A, B, cudnnConvolutionDescriptor_t,
        C, int, int*, Result*),
    cudnnHandle_t handle, A a, B b, cudnnConvolutionDescriptor_t conv, C c,
    size_t workspace_limit, Algorithm* algorithm) {
  const int kMost = 16;  // no kind of convolution has as many
  Result results[kMost];
  int count = 0;
  const cudnnStatus_t status =
      query(handle, a, b, conv, c, kMost, &count, results);
  if (status != CUDNN_STATUS_SUCCESS) {
    return status;
  }
  for (int i = 0; i < count; ++i) {
    if (results[i].status == CUDNN_STATUS_SUCCESS &&
        results[i].memory <= workspace_limit) {
      *algorithm = results[i].algo;
      return CUDNN_STATUS_SUCCESS;
    }
  }
  return CUDNN_STATUS_NOT_SUPPORTED;
}

inline cudnnStatus_t cudnnGetConvolutionForwardAlgorithm(
    cudnnHandle_t handle, cudnnTensorDescriptor_t bottom,
    cudnnFilterDescriptor_t filter, cudnnConvolutionDescriptor_t conv,
    cudnnTensorDescriptor_t top, CaffeConvolutionPreference,
    size_t workspace_limit, cudnnConvolutionFwdAlgo_t* algorithm) {
  return CaffePickAlgorithm(cudnnGetConvolutionForwardAlgorithm_v7, handle,
      bottom, filter, conv, top, workspace_limit, algorithm);
}

inline cudnnStatus_t cudnnGetConvolutionBackwardFilterAlgorithm(
    cudnnHandle_t handle, cudnnTensorDescriptor_t bottom,
    cudnnTensorDescriptor_t top_diff, cudnnConvolutionDescriptor_t conv,
    cudnnFilterDescriptor_t filter_diff, CaffeConvolutionPreference,
    size_t workspace_limit, cudnnConvolutionBwdFilterAlgo_t* algorithm) {
  return CaffePickAlgorithm(cudnnGetConvolutionBackwardFilterAlgorithm_v7,
      handle, bottom, top_diff, conv, filter_diff, workspace_limit, algorithm);
}

inline cudnnStatus_t cudnnGetConvolutionBackwardDataAlgorithm(
    cudnnHandle_t handle, cudnnFilterDescriptor_t filter,
    cudnnTensorDescriptor_t top_diff, cudnnConvolutionDescriptor_t conv,
    cudnnTensorDescriptor_t bottom_diff, CaffeConvolutionPreference,
    size_t workspace_limit, cudnnConvolutionBwdDataAlgo_t* algorithm) {
  return CaffePickAlgorithm(cudnnGetConvolutionBackwardDataAlgorithm_v7,
      handle, filter, top_diff, conv, bottom_diff, workspace_limit, algorithm);
}

/// Keeps single precision: by default cuDNN uses TF32 from Ampere on.
inline cudnnStatus_t CaffeKeepPrecision(cudnnConvolutionDescriptor_t conv) {
  return cudnnSetConvolutionMathType(conv, CUDNN_FMA_MATH);
}

#else  // cuDNN 7 and older

inline cudnnStatus_t CaffeKeepPrecision(cudnnConvolutionDescriptor_t) {
  return CUDNN_STATUS_SUCCESS;
}

#endif  // CUDNN_MAJOR

#endif  // CAFFE_UTIL_TOOLCHAIN_CUDNN_HPP_
