#include <vector>

#include "caffe/layers/unpooling_layer.hpp"
#include "caffe/util/math_functions.hpp"
#include "caffe/util/unpool.cuh"

namespace caffe {

template <typename Dtype>
void UnpoolingLayer<Dtype>::Forward_gpu(const vector<Blob<Dtype>*>& bottom,
    const vector<Blob<Dtype>*>& top) {
  const int pooled = bottom[0]->count();
  const int unpooled = top[0]->count();
  Dtype* top_data = top[0]->mutable_gpu_data();
  caffe_gpu_set(unpooled, Dtype(0), top_data);
  // NOLINT_NEXT_LINE(whitespace/operators)
  UnpoolElect<Dtype><<<CAFFE_GET_BLOCKS(pooled), CAFFE_CUDA_NUM_THREADS>>>(
      pooled, bottom[1]->gpu_data(), pooled_count_, unpooled_count_, top_data);
  CUDA_POST_KERNEL_CHECK;
  // NOLINT_NEXT_LINE(whitespace/operators)
  UnpoolFetch<Dtype><<<CAFFE_GET_BLOCKS(unpooled), CAFFE_CUDA_NUM_THREADS>>>(
      unpooled, bottom[0]->gpu_data(), pooled_count_, unpooled_count_,
      top_data);
  CUDA_POST_KERNEL_CHECK;
}

template <typename Dtype>
void UnpoolingLayer<Dtype>::Backward_gpu(const vector<Blob<Dtype>*>& top,
    const vector<bool>& propagate_down, const vector<Blob<Dtype>*>& bottom) {
  if (!propagate_down[0]) {
    return;
  }
  const int pooled = bottom[0]->count();
  // NOLINT_NEXT_LINE(whitespace/operators)
  UnpoolDiff<Dtype><<<CAFFE_GET_BLOCKS(pooled), CAFFE_CUDA_NUM_THREADS>>>(
      pooled, top[0]->gpu_diff(), bottom[1]->gpu_data(), pooled_count_,
      unpooled_count_, bottom[0]->mutable_gpu_diff());
  CUDA_POST_KERNEL_CHECK;
}

INSTANTIATE_LAYER_GPU_FUNCS(UnpoolingLayer);

}  // namespace caffe
