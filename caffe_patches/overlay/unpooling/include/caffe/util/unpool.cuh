#ifndef CAFFE_UTIL_UNPOOL_CUH_
#define CAFFE_UTIL_UNPOOL_CUH_

// The kernels of unpooling with a mask, as defined in unpool.hpp. Launch them
// with one thread for each of nthreads elements. A mask entry outside its plane
// stops the kernel with an assertion, in every build.

#include <cuda_runtime.h>

namespace caffe {

/// The unsigned integer type of Dtype's size.
template <typename Dtype>
struct UnpoolWord;

template <>
struct UnpoolWord<float> {
  typedef unsigned int type;
};

template <>
struct UnpoolWord<double> {
  typedef unsigned long long type;  // NOLINT(runtime/int): atomicMax needs it
};

/// The place that a mask entry points to; asserts that it lies in the plane.
template <typename Dtype>
__device__ inline int UnpoolPlace(const Dtype entry, const int count) {
  if (!(entry >= Dtype(0) && entry < Dtype(count))) {
    __assert_fail("Unpooling's mask points into its output (check output_h, "
        "output_w or scale)", __FILE__, __LINE__, __FUNCTION__);
  }
  return static_cast<int>(entry);
}

/**
 * @brief First pass: finds which pooled value stays at each place.
 *
 * It stores the result in the zeroed output, as integers: 0 for none, else
 * 1 + the position in its plane of the last value sent there. Unlike a plain
 * store, the maximum does not depend on the order of the threads.
 */
template <typename Dtype>
__global__ void UnpoolElect(const int nthreads, const Dtype* mask,
    const int pooled_count, const int unpooled_count, Dtype* unpooled) {
  typedef typename UnpoolWord<Dtype>::type Word;
  const int index = blockIdx.x * blockDim.x + threadIdx.x;
  if (index >= nthreads) {
    return;
  }
  const int plane = index / pooled_count;
  Dtype* place = unpooled + plane * unpooled_count
      + UnpoolPlace(mask[index], unpooled_count);
  atomicMax(reinterpret_cast<Word*>(place),
      static_cast<Word>(index % pooled_count + 1));
}

/// Second pass: one thread for each place fetches the value elected for it.
template <typename Dtype>
__global__ void UnpoolFetch(const int nthreads, const Dtype* pooled,
    const int pooled_count, const int unpooled_count, Dtype* unpooled) {
  typedef typename UnpoolWord<Dtype>::type Word;
  const int index = blockIdx.x * blockDim.x + threadIdx.x;
  if (index >= nthreads) {
    return;
  }
  const Word elected = reinterpret_cast<const Word*>(unpooled)[index];
  if (elected > 0) {
    const int plane = index / unpooled_count;
    unpooled[index] =
        pooled[plane * pooled_count + static_cast<int>(elected - 1)];
  }
}

/// Each pooled value reads the diff at its place.
template <typename Dtype>
__global__ void UnpoolDiff(const int nthreads, const Dtype* unpooled_diff,
    const Dtype* mask, const int pooled_count, const int unpooled_count,
    Dtype* pooled_diff) {
  const int index = blockIdx.x * blockDim.x + threadIdx.x;
  if (index >= nthreads) {
    return;
  }
  const int plane = index / pooled_count;
  pooled_diff[index] = unpooled_diff[plane * unpooled_count
      + UnpoolPlace(mask[index], unpooled_count)];
}

}  // namespace caffe

#endif  // CAFFE_UTIL_UNPOOL_CUH_
