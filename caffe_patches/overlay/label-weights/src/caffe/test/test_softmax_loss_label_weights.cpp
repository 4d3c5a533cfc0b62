#include <algorithm>
#include <cmath>
#include <vector>

#include "gtest/gtest.h"

#include "caffe/blob.hpp"
#include "caffe/common.hpp"
#include "caffe/filler.hpp"
#include "caffe/layers/softmax_loss_layer.hpp"

#include "caffe/test/test_caffe_main.hpp"
#include "caffe/test/test_gradient_check_util.hpp"

namespace caffe {

const int kChannels = 5;
const float kLabelWeights[] = {0.5, 2, 1, 0, 3.25};

template <typename TypeParam>
class SoftmaxLossLabelWeightsTest : public MultiDeviceTest<TypeParam> {
  typedef typename TypeParam::Dtype Dtype;

 protected:
  SoftmaxLossLabelWeightsTest()
      : data_(4, kChannels, 2, 3), label_(4, 1, 2, 3) {
    FillerParameter filler_param;
    filler_param.set_std(3);
    GaussianFiller<Dtype> filler(filler_param);
    filler.Fill(&data_);
    for (int i = 0; i < label_.count(); ++i) {
      label_.mutable_cpu_data()[i] = i % kChannels;
    }
    bottom_vec_.push_back(&data_);
    bottom_vec_.push_back(&label_);
    top_vec_.push_back(&loss_);
  }

  LayerParameter Weighted() {
    LayerParameter layer_param;
    LossParameter* loss_param = layer_param.mutable_loss_param();
    loss_param->set_use_weights(true);
    for (int i = 0; i < kChannels; ++i) {
      loss_param->add_label_weights(kLabelWeights[i]);
    }
    return layer_param;
  }

  Dtype Loss(const LayerParameter& layer_param) {
    SoftmaxWithLossLayer<Dtype> layer(layer_param);
    layer.SetUp(bottom_vec_, top_vec_);
    layer.Forward(bottom_vec_, top_vec_);
    return loss_.cpu_data()[0];
  }

  // The sum of weighted losses by definition; *count is their number.
  Dtype Sum(const int ignore_label, int* count) {
    double sum = 0;
    *count = 0;
    for (int n = 0; n < 4; ++n) {
      for (int s = 0; s < 6; ++s) {
        const int label = static_cast<int>(label_.cpu_data()[n * 6 + s]);
        if (label == ignore_label) {
          continue;
        }
        double exponentials = 0;
        for (int c = 0; c < kChannels; ++c) {
          exponentials += exp(Score(n, c, s));
        }
        sum += kLabelWeights[label] *
            (log(exponentials) - Score(n, label, s));
        ++*count;
      }
    }
    return sum;
  }

  double Score(const int n, const int c, const int s) {
    return data_.cpu_data()[(n * kChannels + c) * 6 + s];
  }

  void CheckGradient(const LayerParameter& layer_param) {
    SoftmaxWithLossLayer<Dtype> layer(layer_param);
    GradientChecker<Dtype> checker(1e-2, 1e-2, 1701);
    checker.CheckGradientExhaustive(&layer, bottom_vec_, top_vec_, 0);
  }

  Blob<Dtype> data_;
  Blob<Dtype> label_;
  Blob<Dtype> loss_;
  vector<Blob<Dtype>*> bottom_vec_;
  vector<Blob<Dtype>*> top_vec_;
};

TYPED_TEST_CASE(SoftmaxLossLabelWeightsTest, TestDtypesAndDevices);

TYPED_TEST(SoftmaxLossLabelWeightsTest, TestForwardNormalizations) {
  // Each label counts once in the divisor, whatever its weight.
  LayerParameter layer_param = this->Weighted();
  LossParameter* loss_param = layer_param.mutable_loss_param();
  int count;
  const double sum = this->Sum(-1, &count);
  EXPECT_EQ(24, count);
  EXPECT_NEAR(sum / 24, this->Loss(layer_param), 1e-4);  // VALID
  loss_param->set_normalization(LossParameter_NormalizationMode_FULL);
  EXPECT_NEAR(sum / 24, this->Loss(layer_param), 1e-4);
  loss_param->set_normalization(LossParameter_NormalizationMode_BATCH_SIZE);
  EXPECT_NEAR(sum / 4, this->Loss(layer_param), 1e-4);
  loss_param->set_normalization(LossParameter_NormalizationMode_NONE);
  EXPECT_NEAR(sum, this->Loss(layer_param), 1e-3);
}

TYPED_TEST(SoftmaxLossLabelWeightsTest, TestForwardIgnoreLabel) {
  LayerParameter layer_param = this->Weighted();
  LossParameter* loss_param = layer_param.mutable_loss_param();
  loss_param->set_ignore_label(1);
  int count;
  const double sum = this->Sum(1, &count);
  EXPECT_EQ(19, count);  // 5 of the 24 labels are 1
  EXPECT_NEAR(sum / 19, this->Loss(layer_param), 1e-4);  // VALID
  loss_param->set_normalization(LossParameter_NormalizationMode_FULL);
  EXPECT_NEAR(sum / 24, this->Loss(layer_param), 1e-4);
}

TYPED_TEST(SoftmaxLossLabelWeightsTest, TestAllIgnored) {
  typedef typename TypeParam::Dtype Dtype;
  caffe_set(this->label_.count(), Dtype(2), this->label_.mutable_cpu_data());
  LayerParameter layer_param = this->Weighted();
  layer_param.mutable_loss_param()->set_ignore_label(2);
  EXPECT_EQ(0, this->Loss(layer_param));
}

TYPED_TEST(SoftmaxLossLabelWeightsTest, TestOnesAreNoWeights) {
  LayerParameter layer_param;
  layer_param.mutable_loss_param()->set_ignore_label(3);
  const double unweighted = this->Loss(layer_param);
  layer_param.mutable_loss_param()->set_use_weights(true);
  for (int i = 0; i < kChannels; ++i) {
    layer_param.mutable_loss_param()->add_label_weights(1);
  }
  EXPECT_NEAR(unweighted, this->Loss(layer_param), 1e-5);
}

TYPED_TEST(SoftmaxLossLabelWeightsTest, TestSwitchedOff) {
  LayerParameter layer_param;
  const double unweighted = this->Loss(layer_param);
  layer_param = this->Weighted();
  layer_param.mutable_loss_param()->set_use_weights(false);
  EXPECT_EQ(unweighted, this->Loss(layer_param));
}

TYPED_TEST(SoftmaxLossLabelWeightsTest, TestGradient) {
  LayerParameter layer_param = this->Weighted();
  layer_param.add_loss_weight(3);
  this->CheckGradient(layer_param);
}

TYPED_TEST(SoftmaxLossLabelWeightsTest, TestGradientIgnoreLabel) {
  LayerParameter layer_param = this->Weighted();
  layer_param.mutable_loss_param()->set_ignore_label(0);
  this->CheckGradient(layer_param);
}

TYPED_TEST(SoftmaxLossLabelWeightsTest, TestGradientNormalizations) {
  LayerParameter layer_param = this->Weighted();
  LossParameter* loss_param = layer_param.mutable_loss_param();
  loss_param->set_ignore_label(4);
  loss_param->set_normalization(LossParameter_NormalizationMode_FULL);
  this->CheckGradient(layer_param);
  loss_param->set_normalization(LossParameter_NormalizationMode_BATCH_SIZE);
  this->CheckGradient(layer_param);
  loss_param->set_normalization(LossParameter_NormalizationMode_NONE);
  this->CheckGradient(layer_param);
}

}  // namespace caffe
