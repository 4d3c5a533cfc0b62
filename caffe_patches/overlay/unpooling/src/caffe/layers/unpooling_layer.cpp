#include <vector>

#include "caffe/layers/unpooling_layer.hpp"
#include "caffe/util/unpool.hpp"

namespace caffe {

template <typename Dtype>
void UnpoolingLayer<Dtype>::LayerSetUp(const vector<Blob<Dtype>*>& bottom,
    const vector<Blob<Dtype>*>& top) {
  const UnpoolingParameter& param = this->layer_param_.unpooling_param();
  CHECK_EQ(param.has_output_h(), param.has_output_w())
      << this->type() << " layer " << this->layer_param_.name()
      << ": output_h and output_w go together.";
  if (param.has_output_h()) {
    CHECK_GT(param.output_h(), 0) << "output_h cannot be zero.";
    CHECK_GT(param.output_w(), 0) << "output_w cannot be zero.";
  } else {
    CHECK(param.has_scale())
        << this->type() << " layer " << this->layer_param_.name()
        << " needs output_h and output_w, or scale.";
    CHECK_GT(param.scale(), 0) << "scale cannot be zero.";
  }
}

template <typename Dtype>
void UnpoolingLayer<Dtype>::Reshape(const vector<Blob<Dtype>*>& bottom,
    const vector<Blob<Dtype>*>& top) {
  CHECK_EQ(4, bottom[0]->num_axes())
      << "Input must have 4 axes, corresponding to (num, channels, height, "
      << "width)";
  CHECK(bottom[0]->shape() == bottom[1]->shape())
      << "The mask's shape must be the input's: "
      << bottom[1]->shape_string() << " is not " << bottom[0]->shape_string();
  const UnpoolingParameter& param = this->layer_param_.unpooling_param();
  const bool sized = param.has_output_h();
  const int height =
      sized ? param.output_h() : param.scale() * bottom[0]->height();
  const int width =
      sized ? param.output_w() : param.scale() * bottom[0]->width();
  top[0]->Reshape(bottom[0]->num(), bottom[0]->channels(), height, width);
  planes_ = bottom[0]->count(0, 2);
  pooled_count_ = bottom[0]->count(2);
  unpooled_count_ = top[0]->count(2);
}

template <typename Dtype>
void UnpoolingLayer<Dtype>::Forward_cpu(const vector<Blob<Dtype>*>& bottom,
    const vector<Blob<Dtype>*>& top) {
  const Dtype* pooled = bottom[0]->cpu_data();
  const Dtype* mask = bottom[1]->cpu_data();
  Dtype* unpooled = top[0]->mutable_cpu_data();
  for (int plane = 0; plane < planes_; ++plane) {
    const int bad =
        UnpoolPlane(pooled, mask, pooled_count_, unpooled, unpooled_count_);
    CHECK_EQ(bad, -1)
        << this->type() << " layer " << this->layer_param_.name()
        << ": the mask points at " << mask[bad] << ", outside of a plane of "
        << top[0]->height() << " x " << top[0]->width()
        << " (check output_h, output_w or scale).";
    pooled += pooled_count_;
    mask += pooled_count_;
    unpooled += unpooled_count_;
  }
}

template <typename Dtype>
void UnpoolingLayer<Dtype>::Backward_cpu(const vector<Blob<Dtype>*>& top,
    const vector<bool>& propagate_down, const vector<Blob<Dtype>*>& bottom) {
  if (!propagate_down[0]) {
    return;
  }
  const Dtype* unpooled_diff = top[0]->cpu_diff();
  const Dtype* mask = bottom[1]->cpu_data();
  Dtype* pooled_diff = bottom[0]->mutable_cpu_diff();
  for (int plane = 0; plane < planes_; ++plane) {
    const int bad = UnpoolPlaneDiff(unpooled_diff, unpooled_count_, mask,
        pooled_count_, pooled_diff);
    CHECK_EQ(bad, -1)
        << this->type() << " layer " << this->layer_param_.name()
        << ": the mask points at " << mask[bad] << ", outside of its plane.";
    unpooled_diff += unpooled_count_;
    mask += pooled_count_;
    pooled_diff += pooled_count_;
  }
}

#ifdef CPU_ONLY
STUB_GPU(UnpoolingLayer);
#endif

INSTANTIATE_CLASS(UnpoolingLayer);
REGISTER_LAYER_CLASS(Unpooling);

}  // namespace caffe
