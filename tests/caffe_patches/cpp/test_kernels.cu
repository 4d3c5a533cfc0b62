// The kernels against the plain functions: unpool.cuh and label_weights.cuh.
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "caffe/util/label_weights.cuh"
#include "caffe/util/unpool.cuh"
#include "caffe/util/unpool.hpp"

namespace caffe {

const int kThreads = 128;

inline int Blocks(const int count) {
  return (count + kThreads - 1) / kThreads;
}

/// An array on the device.
template <typename Dtype>
class Device {
 public:
  explicit Device(const std::vector<Dtype>& values) : count_(values.size()) {
    EXPECT_EQ(cudaSuccess, cudaMalloc(&data_, count_ * sizeof(Dtype)));
    EXPECT_EQ(cudaSuccess,
        cudaMemcpy(data_, values.data(), count_ * sizeof(Dtype), cudaMemcpyHostToDevice));
  }
  ~Device() { cudaFree(data_); }
  Dtype* data() { return data_; }
  std::vector<Dtype> host() const {
    std::vector<Dtype> values(count_);
    EXPECT_EQ(cudaSuccess,
        cudaMemcpy(values.data(), data_, count_ * sizeof(Dtype), cudaMemcpyDeviceToHost));
    return values;
  }

 private:
  Device(const Device&);
  Device& operator=(const Device&);

  size_t count_;
  Dtype* data_;
};

template <typename Dtype>
class KernelTest : public ::testing::Test {
 protected:
  virtual void SetUp() {
    int devices = 0;
    if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
      GTEST_SKIP() << "no CUDA device: the kernels were compiled, not run";
    }
  }
};

typedef ::testing::Types<float, double> Dtypes;
TYPED_TEST_SUITE(KernelTest, Dtypes);

TYPED_TEST(KernelTest, UnpoolingIsThePlainOneInEveryRun) {
  const int planes = 3, pooled_count = 1000, unpooled_count = 300;  // much overlap
  std::vector<TypeParam> pooled, mask;
  for (int i = 0; i < planes * pooled_count; ++i) {
    pooled.push_back(i % 7 ? i : -i);
    mask.push_back(i * 7919 % 291);  // some places stay empty
  }
  std::vector<TypeParam> expected(planes * unpooled_count), expected_diff(pooled.size());
  for (int plane = 0; plane < planes; ++plane) {
    const TypeParam* plane_mask = &mask[plane * pooled_count];
    TypeParam* unpooled = &expected[plane * unpooled_count];
    ASSERT_EQ(-1, UnpoolPlane(&pooled[plane * pooled_count], plane_mask, pooled_count, unpooled,
        unpooled_count));
    ASSERT_EQ(-1, UnpoolPlaneDiff(unpooled, unpooled_count, plane_mask, pooled_count,
        &expected_diff[plane * pooled_count]));
  }
  Device<TypeParam> device_pooled(pooled), device_mask(mask);
  for (int run = 0; run < 10; ++run) {
    Device<TypeParam> unpooled(std::vector<TypeParam>(expected.size()));
    Device<TypeParam> diff(std::vector<TypeParam>(pooled.size()));
    const int count = static_cast<int>(pooled.size());
    const int places = static_cast<int>(expected.size());
    UnpoolElect<<<Blocks(count), kThreads>>>(count, device_mask.data(), pooled_count,
        unpooled_count, unpooled.data());
    UnpoolFetch<<<Blocks(places), kThreads>>>(places, device_pooled.data(), pooled_count,
        unpooled_count, unpooled.data());
    UnpoolDiff<<<Blocks(count), kThreads>>>(count, unpooled.data(), device_mask.data(),
        pooled_count, unpooled_count, diff.data());
    EXPECT_EQ(expected, unpooled.host());
    EXPECT_EQ(expected_diff, diff.host());
  }
}

TYPED_TEST(KernelTest, WeightedLossIsThePlainOne) {
  const LabelGrid grid = {3, 5, 100, true, 2};
  const int labels = grid.outer * grid.inner;
  std::vector<TypeParam> prob, label;
  const std::vector<TypeParam> weight = {0.5, 2, 7, 0, 1.5};
  for (int i = 0; i < labels * grid.channels; ++i) {
    prob.push_back(i % 50 ? 0.5 + 0.4 * std::sin(i) : 0);
  }
  for (int i = 0; i < labels; ++i) {
    label.push_back(i * 3 % 5);
  }
  int expected_count;
  const TypeParam expected =
      WeightedLoss(grid, prob.data(), label.data(), weight.data(), &expected_count);
  std::vector<TypeParam> expected_diff(prob.size());
  WeightedLossDiff(grid, prob.data(), label.data(), weight.data(), TypeParam(0.125),
      expected_diff.data());

  Device<TypeParam> device_prob(prob), device_label(label), device_weight(weight);
  Device<TypeParam> terms(std::vector<TypeParam>(labels, 9));
  Device<TypeParam> counts(std::vector<TypeParam>(labels, 9));
  Device<TypeParam> diff(std::vector<TypeParam>(prob.size(), 9));
  WeightedLossTerms<<<Blocks(labels), kThreads>>>(grid, device_prob.data(), device_label.data(),
      device_weight.data(), terms.data(), counts.data());
  WeightedLossColumnDiff<<<Blocks(labels), kThreads>>>(grid, device_prob.data(),
      device_label.data(), device_weight.data(), TypeParam(0.125), diff.data());
  double loss = 0, count = 0;
  for (const TypeParam term : terms.host()) {
    loss += term;
  }
  for (const TypeParam one : counts.host()) {
    count += one;
  }
  EXPECT_NEAR(expected, loss, 1e-4 * std::fabs(expected));
  EXPECT_EQ(expected_count, count);
  const std::vector<TypeParam> found = diff.host();
  for (size_t i = 0; i < found.size(); ++i) {
    ASSERT_NEAR(expected_diff[i], found[i], 1e-6) << i;
  }
}

}  // namespace caffe
