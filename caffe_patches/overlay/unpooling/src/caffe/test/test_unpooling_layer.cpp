#include <vector>

#include "gtest/gtest.h"

#include "caffe/blob.hpp"
#include "caffe/common.hpp"
#include "caffe/filler.hpp"
#include "caffe/layers/pooling_layer.hpp"
#include "caffe/layers/unpooling_layer.hpp"

#include "caffe/test/test_caffe_main.hpp"
#include "caffe/test/test_gradient_check_util.hpp"

namespace caffe {

template <typename TypeParam>
class UnpoolingLayerTest : public MultiDeviceTest<TypeParam> {
  typedef typename TypeParam::Dtype Dtype;

 protected:
  UnpoolingLayerTest() {
    bottom_vec_.push_back(&pooled_);
    bottom_vec_.push_back(&mask_);
    top_vec_.push_back(&top_);
  }

  // Two images of two channels, all with the same plane.
  void FillPlanes(const int height, const int width, const Dtype* pooled,
      const Dtype* mask) {
    pooled_.Reshape(2, 2, height, width);
    mask_.Reshape(2, 2, height, width);
    for (int i = 0; i < pooled_.count(); ++i) {
      pooled_.mutable_cpu_data()[i] = pooled[i % (height * width)];
      mask_.mutable_cpu_data()[i] = mask[i % (height * width)];
    }
  }

  void ExpectPlanes(const Blob<Dtype>& blob, const Dtype* data,
      const Dtype* expected) {
    const int plane = blob.count(2);
    for (int i = 0; i < blob.count(); ++i) {
      EXPECT_EQ(expected[i % plane], data[i]) << "at " << i;
    }
  }

  // The mask of max pooling over random values, without ties.
  void Pool(const int height, const int width, const int kernel,
      const int stride) {
    Blob<Dtype> input(2, 3, height, width);
    FillerParameter filler_param;
    GaussianFiller<Dtype> filler(filler_param);
    filler.Fill(&input);
    LayerParameter layer_param;
    PoolingParameter* pooling_param = layer_param.mutable_pooling_param();
    pooling_param->set_kernel_size(kernel);
    pooling_param->set_stride(stride);
    PoolingLayer<Dtype> pooling(layer_param);
    const vector<Blob<Dtype>*> bottom(1, &input);
    pooling.SetUp(bottom, bottom_vec_);
    pooling.Forward(bottom, bottom_vec_);
  }

  Blob<Dtype> pooled_;
  Blob<Dtype> mask_;
  Blob<Dtype> top_;
  vector<Blob<Dtype>*> bottom_vec_;
  vector<Blob<Dtype>*> top_vec_;
};

TYPED_TEST_CASE(UnpoolingLayerTest, TestDtypesAndDevices);

TYPED_TEST(UnpoolingLayerTest, TestSetUpScale) {
  typedef typename TypeParam::Dtype Dtype;
  this->Pool(6, 8, 2, 2);
  LayerParameter layer_param;
  layer_param.mutable_unpooling_param()->set_scale(2);
  UnpoolingLayer<Dtype> layer(layer_param);
  layer.SetUp(this->bottom_vec_, this->top_vec_);
  EXPECT_EQ(2, this->top_.num());
  EXPECT_EQ(3, this->top_.channels());
  EXPECT_EQ(6, this->top_.height());
  EXPECT_EQ(8, this->top_.width());
  // The size follows the input's.
  this->Pool(10, 4, 2, 2);
  layer.Reshape(this->bottom_vec_, this->top_vec_);
  EXPECT_EQ(10, this->top_.height());
  EXPECT_EQ(4, this->top_.width());
}

TYPED_TEST(UnpoolingLayerTest, TestSetUpSize) {
  typedef typename TypeParam::Dtype Dtype;
  this->Pool(5, 7, 2, 2);  // to 3 x 4, rounded up
  LayerParameter layer_param;
  layer_param.mutable_unpooling_param()->set_output_h(5);
  layer_param.mutable_unpooling_param()->set_output_w(7);
  layer_param.mutable_unpooling_param()->set_scale(2);  // is overridden
  UnpoolingLayer<Dtype> layer(layer_param);
  layer.SetUp(this->bottom_vec_, this->top_vec_);
  EXPECT_EQ(5, this->top_.height());
  EXPECT_EQ(7, this->top_.width());
}

TYPED_TEST(UnpoolingLayerTest, TestForward) {
  typedef typename TypeParam::Dtype Dtype;
  const Dtype pooled[] = {1, -2, 3, 4};
  const Dtype mask[] = {5, 2, 8, 15};
  this->FillPlanes(2, 2, pooled, mask);
  LayerParameter layer_param;
  layer_param.mutable_unpooling_param()->set_scale(2);
  UnpoolingLayer<Dtype> layer(layer_param);
  layer.SetUp(this->bottom_vec_, this->top_vec_);
  // Earlier contents of the top must be overwritten.
  caffe_set(this->top_.count(), Dtype(9), this->top_.mutable_cpu_data());
  layer.Forward(this->bottom_vec_, this->top_vec_);
  const Dtype expected[] = {
    0, 0, -2, 0,
    0, 1, 0, 0,
    3, 0, 0, 0,
    0, 0, 0, 4
  };
  this->ExpectPlanes(this->top_, this->top_.cpu_data(), expected);
}

TYPED_TEST(UnpoolingLayerTest, TestOverlap) {
  typedef typename TypeParam::Dtype Dtype;
  const Dtype pooled[] = {7, 8, 9, -6};
  const Dtype mask[] = {4, 4, 0, 4};  // the last of the three stays
  this->FillPlanes(2, 2, pooled, mask);
  LayerParameter layer_param;
  layer_param.mutable_unpooling_param()->set_output_h(3);
  layer_param.mutable_unpooling_param()->set_output_w(3);
  UnpoolingLayer<Dtype> layer(layer_param);
  layer.SetUp(this->bottom_vec_, this->top_vec_);
  layer.Forward(this->bottom_vec_, this->top_vec_);
  const Dtype expected[] = {9, 0, 0, 0, -6, 0, 0, 0, 0};
  this->ExpectPlanes(this->top_, this->top_.cpu_data(), expected);
  // Each of the three reads the diff of the place that they share.
  for (int i = 0; i < this->top_.count(); ++i) {
    this->top_.mutable_cpu_diff()[i] = 10 + i % 9;
  }
  vector<bool> propagate_down(2, true);
  layer.Backward(this->top_vec_, propagate_down, this->bottom_vec_);
  const Dtype expected_diff[] = {14, 14, 10, 14};
  this->ExpectPlanes(this->pooled_, this->pooled_.cpu_diff(), expected_diff);
}

TYPED_TEST(UnpoolingLayerTest, TestOverlapIsRepeatable) {
  typedef typename TypeParam::Dtype Dtype;
  this->Pool(61, 67, 3, 1);  // most maxima belong to several windows
  LayerParameter layer_param;
  layer_param.mutable_unpooling_param()->set_output_h(61);
  layer_param.mutable_unpooling_param()->set_output_w(67);
  UnpoolingLayer<Dtype> layer(layer_param);
  // Replaces the pooled values by distinct ones, to see which of them stays.
  for (int i = 0; i < this->pooled_.count(); ++i) {
    this->pooled_.mutable_cpu_data()[i] = i;
  }
  layer.SetUp(this->bottom_vec_, this->top_vec_);
  Blob<Dtype> expected(2, 3, 61, 67);
  const int pooled_plane = this->pooled_.count(2);
  for (int i = 0; i < this->pooled_.count(); ++i) {
    const int place = static_cast<int>(this->mask_.cpu_data()[i]);
    expected.mutable_cpu_data()[i / pooled_plane * 61 * 67 + place] = i;
  }
  for (int run = 0; run < 10; ++run) {
    layer.Forward(this->bottom_vec_, this->top_vec_);
    for (int i = 0; i < expected.count(); ++i) {
      ASSERT_EQ(expected.cpu_data()[i], this->top_.cpu_data()[i])
          << "run " << run << ", at " << i;
    }
  }
}

TYPED_TEST(UnpoolingLayerTest, TestUndoesPooling) {
  typedef typename TypeParam::Dtype Dtype;
  this->Pool(5, 7, 2, 2);
  LayerParameter layer_param;
  layer_param.mutable_unpooling_param()->set_output_h(5);
  layer_param.mutable_unpooling_param()->set_output_w(7);
  UnpoolingLayer<Dtype> layer(layer_param);
  layer.SetUp(this->bottom_vec_, this->top_vec_);
  layer.Forward(this->bottom_vec_, this->top_vec_);
  // Pooling the result gives the same maxima (or a zero beside a negative
  // one) at the same places.
  Blob<Dtype> pooled, mask;
  vector<Blob<Dtype>*> again_vec;
  again_vec.push_back(&pooled);
  again_vec.push_back(&mask);
  LayerParameter pooling_layer_param;
  pooling_layer_param.mutable_pooling_param()->set_kernel_size(2);
  pooling_layer_param.mutable_pooling_param()->set_stride(2);
  PoolingLayer<Dtype> pooling(pooling_layer_param);
  pooling.SetUp(this->top_vec_, again_vec);
  pooling.Forward(this->top_vec_, again_vec);
  for (int i = 0; i < pooled.count(); ++i) {
    const Dtype value = this->pooled_.cpu_data()[i];
    if (value > 0) {
      EXPECT_EQ(value, pooled.cpu_data()[i]);
      EXPECT_EQ(this->mask_.cpu_data()[i], mask.cpu_data()[i]);
    }
  }
}

TYPED_TEST(UnpoolingLayerTest, TestGradient) {
  typedef typename TypeParam::Dtype Dtype;
  this->Pool(5, 7, 2, 2);
  LayerParameter layer_param;
  layer_param.mutable_unpooling_param()->set_output_h(5);
  layer_param.mutable_unpooling_param()->set_output_w(7);
  UnpoolingLayer<Dtype> layer(layer_param);
  GradientChecker<Dtype> checker(1e-2, 1e-2);
  checker.CheckGradientExhaustive(&layer, this->bottom_vec_, this->top_vec_,
      0);
}

}  // namespace caffe
