#include <vector>

#include "caffe/layers/softmax_loss_layer.hpp"
#include "caffe/util/label_weights.cuh"
#include "caffe/util/math_functions.hpp"

namespace caffe {

template <typename Dtype>
void SoftmaxWithLossLayer<Dtype>::WeightedForward_gpu(
    const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  softmax_layer_->Forward(softmax_bottom_vec_, softmax_top_vec_);
  const LabelGrid grid = label_grid();
  const int labels = grid.outer * grid.inner;
  weighted_terms_.Reshape(vector<int>(1, labels));
  Dtype* terms = weighted_terms_.mutable_gpu_data();
  Dtype* counts = weighted_terms_.mutable_gpu_diff();
  // NOLINT_NEXT_LINE(whitespace/operators)
  WeightedLossTerms<Dtype><<<CAFFE_GET_BLOCKS(labels),
      CAFFE_CUDA_NUM_THREADS>>>(grid, prob_.gpu_data(), bottom[1]->gpu_data(),
      label_weights_.gpu_data(), terms, counts);
  CUDA_POST_KERNEL_CHECK;
  // The dot product with counts sums the terms; asum would drop their signs.
  Dtype loss, count;
  caffe_gpu_dot(labels, terms, counts, &loss);
  caffe_gpu_asum(labels, counts, &count);
  top[0]->mutable_cpu_data()[0] =
      loss / get_normalizer(normalization_, static_cast<int>(count));
  if (top.size() == 2) {
    top[1]->ShareData(prob_);
  }
}

template <typename Dtype>
void SoftmaxWithLossLayer<Dtype>::WeightedBackward_gpu(
    const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
    const vector<Blob<Dtype>*>& bottom) {
  CHECK(!propagate_down[1])
      << this->type() << " Layer cannot backpropagate to label inputs.";
  if (!propagate_down[0]) {
    return;
  }
  const LabelGrid grid = label_grid();
  const int labels = grid.outer * grid.inner;
  // Forward stored in this diff which labels count.
  Dtype count;
  caffe_gpu_asum(labels, weighted_terms_.gpu_diff(), &count);
  const Dtype scale = top[0]->cpu_diff()[0] /
      get_normalizer(normalization_, static_cast<int>(count));
  // NOLINT_NEXT_LINE(whitespace/operators)
  WeightedLossColumnDiff<Dtype><<<CAFFE_GET_BLOCKS(labels),
      CAFFE_CUDA_NUM_THREADS>>>(grid, prob_.gpu_data(), bottom[1]->gpu_data(),
      label_weights_.gpu_data(), scale, bottom[0]->mutable_gpu_diff());
  CUDA_POST_KERNEL_CHECK;
}

#define INSTANTIATE_WEIGHTED_GPU(Dtype) \
  template void SoftmaxWithLossLayer<Dtype>::WeightedForward_gpu( \
      const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top); \
  template void SoftmaxWithLossLayer<Dtype>::WeightedBackward_gpu( \
      const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down, \
      const vector<Blob<Dtype>*>& bottom);

INSTANTIATE_WEIGHTED_GPU(float)  // NOLINT(readability/casting)
INSTANTIATE_WEIGHTED_GPU(double)  // NOLINT(readability/casting)

}  // namespace caffe
