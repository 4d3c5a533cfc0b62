// The order of an epoch's records: caffe/util/epoch_permutation.hpp.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>
#include <vector>

#include "caffe/util/epoch_permutation.hpp"

namespace caffe {

typedef std::vector<size_t> Order;

TEST(SplitMix64Test, GivesTheGeneratorsNumbers) {
  // The first numbers from state 1234567, as the generator's authors publish them.
  SplitMix64 generator(1234567);
  EXPECT_EQ(6457827717110365317ULL, generator.Next());
  EXPECT_EQ(3203168211198807973ULL, generator.Next());
  EXPECT_EQ(9817491932198370423ULL, generator.Next());
}

TEST(SplitMix64Test, NumbersBelowABoundAreEquallyLikely) {
  // 60000 draws among 6: each comes 10000 times, with a standard deviation of
  // sqrt(60000 * 1/6 * 5/6) = 91.
  SplitMix64 generator(1);
  std::vector<int> counts(6);
  for (int i = 0; i < 60000; ++i) {
    const uint64_t drawn = generator.Below(6);
    ASSERT_LT(drawn, 6u);
    ++counts[drawn];
  }
  for (const int count : counts) {
    EXPECT_NEAR(10000, count, 5 * 91);
  }
}

TEST(EpochPermutationTest, HoldsEachPositionOnce) {
  for (const size_t count : {0, 1, 2, 795, 5285}) {
    Order order = EpochPermutation(7, 3, count);
    std::sort(order.begin(), order.end());
    ASSERT_EQ(count, order.size());
    for (size_t i = 0; i < count; ++i) {
      ASSERT_EQ(i, order[i]);
    }
  }
}

TEST(EpochPermutationTest, DependsOnSeedAndEpochAlone) {
  const Order order = EpochPermutation(7, 3, 100);
  EXPECT_EQ(order, EpochPermutation(7, 3, 100));
  EXPECT_NE(order, EpochPermutation(8, 3, 100));
  EXPECT_NE(order, EpochPermutation(7, 4, 100));
}

TEST(EpochPermutationTest, SeedsAndEpochsDoNotTradePlaces) {
  std::set<Order> orders;
  for (uint64_t seed = 0; seed < 30; ++seed) {
    for (uint64_t epoch = 0; epoch < 30; ++epoch) {
      orders.insert(EpochPermutation(seed, epoch, 50));
    }
  }
  EXPECT_EQ(900u, orders.size());
}

TEST(EpochPermutationTest, AllOrdersAreEquallyLikely) {
  // Of the 24 orders of 4, each comes 1000 times in 24000 epochs, with a
  // standard deviation of sqrt(24000 * 1/24 * 23/24) = 31.
  std::map<Order, int> counts;
  for (uint64_t epoch = 0; epoch < 24000; ++epoch) {
    ++counts[EpochPermutation(42, epoch, 4)];
  }
  EXPECT_EQ(24u, counts.size());
  for (const auto& entry : counts) {
    EXPECT_NEAR(1000, entry.second, 5 * 31);
  }
}

TEST(EpochPermutationTest, TheOrderStaysFromVersionToVersion) {
  // As a second implementation of the same definition gives them: whoever
  // repeats a run relies on it.
  EXPECT_EQ(Order({4, 2, 0, 5, 6, 1, 7, 3}), EpochPermutation(1, 0, 8));
  EXPECT_EQ(Order({0, 1, 4, 2, 7, 5, 6, 3}), EpochPermutation(1, 1, 8));
}

}  // namespace caffe
