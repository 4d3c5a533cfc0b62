// Unpooling's index mapping: caffe/util/unpool.hpp.
#include <gtest/gtest.h>

#include <limits>
#include <vector>

#include "caffe/util/unpool.hpp"

namespace caffe {

template <typename Dtype>
class UnpoolTest : public ::testing::Test {
 protected:
  typedef std::vector<Dtype> Values;

  static int Unpool(const Values& pooled, const Values& mask, Values* unpooled) {
    return UnpoolPlane(pooled.data(), mask.data(), static_cast<int>(pooled.size()),
        unpooled->data(), static_cast<int>(unpooled->size()));
  }

  static int Diff(const Values& diff, const Values& mask, Values* pooled_diff) {
    return UnpoolPlaneDiff(diff.data(), static_cast<int>(diff.size()), mask.data(),
        static_cast<int>(mask.size()), pooled_diff->data());
  }
};

typedef ::testing::Types<float, double> Dtypes;
TYPED_TEST_SUITE(UnpoolTest, Dtypes);

TYPED_TEST(UnpoolTest, SendsEachValueToItsPlaceAmongZeros) {
  std::vector<TypeParam> unpooled(6, 9);
  EXPECT_EQ(-1, this->Unpool({-3, 4}, {5, 1}, &unpooled));
  EXPECT_EQ(std::vector<TypeParam>({0, 4, 0, 0, 0, -3}), unpooled);
}

TYPED_TEST(UnpoolTest, TheLastOfSeveralStays) {
  std::vector<TypeParam> unpooled(3);
  EXPECT_EQ(-1, this->Unpool({8, 7, -1}, {2, 2, 2}, &unpooled));
  EXPECT_EQ(std::vector<TypeParam>({0, 0, -1}), unpooled);
}

TYPED_TEST(UnpoolTest, EachReadsTheDiffOfItsPlace) {
  std::vector<TypeParam> pooled_diff(3);
  EXPECT_EQ(-1, this->Diff({10, 11, 12}, {2, 0, 2}, &pooled_diff));
  EXPECT_EQ(std::vector<TypeParam>({12, 10, 12}), pooled_diff);
}

TYPED_TEST(UnpoolTest, NamesTheFirstEntryOutsideOfThePlane) {
  const TypeParam nan = std::numeric_limits<TypeParam>::quiet_NaN();
  for (const TypeParam bad : {TypeParam(3), TypeParam(-1), TypeParam(1e30), nan}) {
    std::vector<TypeParam> unpooled(3), pooled_diff(3);
    EXPECT_EQ(1, this->Unpool({1, 2, 3}, {2, bad, bad}, &unpooled));
    EXPECT_EQ(1, this->Diff({1, 2, 3}, {2, bad, bad}, &pooled_diff));
  }
}

}  // namespace caffe
