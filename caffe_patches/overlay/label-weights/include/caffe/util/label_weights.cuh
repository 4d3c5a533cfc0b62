#ifndef CAFFE_UTIL_LABEL_WEIGHTS_CUH_
#define CAFFE_UTIL_LABEL_WEIGHTS_CUH_

// The kernels of the weighted softmax loss, as defined in label_weights.hpp.
// Launch them with one thread for each label. A label that is neither ignored
// nor a channel stops the kernel with an assertion, in every build.

#include <cuda_runtime.h>

#include <algorithm>
#include <cfloat>

#include "caffe/util/label_weights.hpp"

namespace caffe {

/// The label at index, or -1 if it is ignored.
template <typename Dtype>
__device__ inline int CheckedLabel(const LabelGrid& grid, const Dtype* label,
    const int index) {
  const int value = static_cast<int>(label[index]);
  if (grid.has_ignore_label && value == grid.ignore_label) {
    return -1;
  }
  if (!(label[index] > Dtype(-1) && label[index] < Dtype(grid.channels))) {
    __assert_fail("SoftmaxWithLoss's label names a channel", __FILE__,
        __LINE__, __FUNCTION__);
  }
  return value;
}

/// Each label's weighted loss; counts is 1 if the label counts, else 0.
template <typename Dtype>
__global__ void WeightedLossTerms(const LabelGrid grid, const Dtype* prob,
    const Dtype* label, const Dtype* weight, Dtype* loss, Dtype* counts) {
  const int index = blockIdx.x * blockDim.x + threadIdx.x;
  if (index >= grid.outer * grid.inner) {
    return;
  }
  const int k = CheckedLabel(grid, label, index);
  loss[index] = 0;
  counts[index] = k >= 0;
  if (k >= 0) {
    const int i = index / grid.inner;
    const int j = index % grid.inner;
    const Dtype p = prob[(i * grid.channels + k) * grid.inner + j];
    loss[index] = -weight[k] * log(max(p, Dtype(FLT_MIN)));
  }
}

/// The gradient of each label's column.
template <typename Dtype>
__global__ void WeightedLossColumnDiff(const LabelGrid grid, const Dtype* prob,
    const Dtype* label, const Dtype* weight, const Dtype scale, Dtype* diff) {
  const int index = blockIdx.x * blockDim.x + threadIdx.x;
  if (index >= grid.outer * grid.inner) {
    return;
  }
  const int label_value = CheckedLabel(grid, label, index);
  const int i = index / grid.inner;
  const int j = index % grid.inner;
  for (int k = 0; k < grid.channels; ++k) {
    const int at = (i * grid.channels + k) * grid.inner + j;
    const Dtype hit = k == label_value;
    diff[at] = label_value < 0
        ? Dtype(0) : scale * weight[label_value] * (prob[at] - hit);
  }
}

}  // namespace caffe

#endif  // CAFFE_UTIL_LABEL_WEIGHTS_CUH_
