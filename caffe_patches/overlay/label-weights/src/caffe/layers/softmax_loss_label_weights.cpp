#include <vector>

#include "caffe/layers/softmax_loss_layer.hpp"
#include "caffe/util/label_weights.hpp"

// SoftmaxWithLossLayer with use_weights in loss_param: each label's loss and
// gradient are multiplied by its weight. The divisor remains that of the
// normalization; it is never the sum of the weights.

namespace caffe {

template <typename Dtype>
LabelGrid SoftmaxWithLossLayer<Dtype>::label_grid() const {
  LabelGrid grid;
  grid.outer = outer_num_;
  grid.channels = prob_.shape(softmax_axis_);
  grid.inner = inner_num_;
  grid.has_ignore_label = has_ignore_label_;
  grid.ignore_label = has_ignore_label_ ? ignore_label_ : 0;
  return grid;
}

template <typename Dtype>
void SoftmaxWithLossLayer<Dtype>::ReshapeLabelWeights(
    const vector<Blob<Dtype>*>& bottom) {
  const LossParameter& param = this->layer_param_.loss_param();
  weighted_ = param.use_weights();
  if (!weighted_) {
    return;
  }
  const int channels = bottom[0]->shape(softmax_axis_);
  CHECK_EQ(param.label_weights_size(), channels)
      << this->type() << " layer " << this->layer_param_.name()
      << " has use_weights: true: it takes one label_weights for each of the "
      << channels << " channels of its input.";
  if (label_weights_.count() == channels) {
    return;
  }
  label_weights_.Reshape(vector<int>(1, channels));
  Dtype* weight = label_weights_.mutable_cpu_data();
  for (int i = 0; i < channels; ++i) {
    weight[i] = param.label_weights(i);
  }
}

template <typename Dtype>
void SoftmaxWithLossLayer<Dtype>::WeightedForward_cpu(
    const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  softmax_layer_->Forward(softmax_bottom_vec_, softmax_top_vec_);
  const LabelGrid grid = label_grid();
  const Dtype* label = bottom[1]->cpu_data();
  const int bad = FirstBadLabel(grid, label);
  CHECK_EQ(bad, -1)
      << this->type() << " layer " << this->layer_param_.name() << ": label "
      << label[bad] << " is not among its " << grid.channels << " channels.";
  int count;
  const Dtype loss = WeightedLoss(grid, prob_.cpu_data(), label,
      label_weights_.cpu_data(), &count);
  top[0]->mutable_cpu_data()[0] = loss / get_normalizer(normalization_, count);
  if (top.size() == 2) {
    top[1]->ShareData(prob_);
  }
}

template <typename Dtype>
void SoftmaxWithLossLayer<Dtype>::WeightedBackward_cpu(
    const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
    const vector<Blob<Dtype>*>& bottom) {
  CHECK(!propagate_down[1])
      << this->type() << " Layer cannot backpropagate to label inputs.";
  if (!propagate_down[0]) {
    return;
  }
  const LabelGrid grid = label_grid();
  const Dtype* label = bottom[1]->cpu_data();
  const Dtype scale = top[0]->cpu_diff()[0] /
      get_normalizer(normalization_, CountLabels(grid, label));
  WeightedLossDiff(grid, prob_.cpu_data(), label, label_weights_.cpu_data(),
      scale, bottom[0]->mutable_cpu_diff());
}

// The class itself is instantiated in softmax_loss_layer.cpp.
#define INSTANTIATE_WEIGHTED(Dtype) \
  template LabelGrid SoftmaxWithLossLayer<Dtype>::label_grid() const; \
  template void SoftmaxWithLossLayer<Dtype>::ReshapeLabelWeights( \
      const vector<Blob<Dtype>*>& bottom); \
  template void SoftmaxWithLossLayer<Dtype>::WeightedForward_cpu( \
      const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top); \
  template void SoftmaxWithLossLayer<Dtype>::WeightedBackward_cpu( \
      const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down, \
      const vector<Blob<Dtype>*>& bottom);

INSTANTIATE_WEIGHTED(float)  // NOLINT(readability/casting)
INSTANTIATE_WEIGHTED(double)  // NOLINT(readability/casting)

}  // namespace caffe
