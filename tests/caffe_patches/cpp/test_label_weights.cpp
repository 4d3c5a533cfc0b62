// The weighted softmax loss and its gradient: caffe/util/label_weights.hpp.
#include <gtest/gtest.h>

#include <cfloat>
#include <cmath>
#include <vector>

#include "caffe/util/label_weights.hpp"

namespace caffe {

const int kOuter = 2, kChannels = 3, kInner = 4;

class LabelWeightsTest : public ::testing::Test {
 protected:
  LabelWeightsTest()
      : grid_{kOuter, kChannels, kInner, true, 1}, label_{0, 1, 2, 2, 1, 0, 2, 1},
        weight_{0.5, 4, 3} {
    for (int i = 0; i < kOuter * kChannels * kInner; ++i) {
      score_.push_back(std::sin(3.7 * i));  // any numbers
    }
  }

  std::vector<double> Softmax(const std::vector<double>& score) const {
    std::vector<double> prob(score.size());
    for (int i = 0; i < kOuter; ++i) {
      for (int j = 0; j < kInner; ++j) {
        double sum = 0;
        for (int k = 0; k < kChannels; ++k) {
          sum += std::exp(score[At(i, k, j)]);
        }
        for (int k = 0; k < kChannels; ++k) {
          prob[At(i, k, j)] = std::exp(score[At(i, k, j)]) / sum;
        }
      }
    }
    return prob;
  }

  static int At(const int i, const int k, const int j) {
    return (i * kChannels + k) * kInner + j;
  }

  double Loss(const std::vector<double>& score, int* count) const {
    return WeightedLoss(grid_, Softmax(score).data(), label_.data(), weight_.data(), count);
  }

  LabelGrid grid_;
  std::vector<double> label_, weight_, score_;
};

TEST_F(LabelWeightsTest, SumsWeightTimesLogOverTheLabelsThatCount) {
  const std::vector<double> prob = Softmax(score_);
  // Label 1 is ignored: (i, j, label) of the five others.
  const double expected = -0.5 * std::log(prob[At(0, 0, 0)]) - 3 * std::log(prob[At(0, 2, 2)]) -
      3 * std::log(prob[At(0, 2, 3)]) - 0.5 * std::log(prob[At(1, 0, 1)]) -
      3 * std::log(prob[At(1, 2, 2)]);
  int count = -1;
  EXPECT_NEAR(expected, Loss(score_, &count), 1e-12);
  EXPECT_EQ(5, count);
  EXPECT_EQ(5, CountLabels(grid_, label_.data()));
}

TEST_F(LabelWeightsTest, CountsAllWithoutAnIgnoreLabel) {
  grid_.has_ignore_label = false;
  int count = -1;
  Loss(score_, &count);
  EXPECT_EQ(8, count);
  EXPECT_EQ(8, CountLabels(grid_, label_.data()));
}

TEST_F(LabelWeightsTest, ClampsProbabilities) {
  const LabelGrid one = {1, 1, 1, false, 0};
  const float prob = 0, label = 0, weight = 2;
  int count;
  EXPECT_FLOAT_EQ(-2 * std::log(FLT_MIN), WeightedLoss(one, &prob, &label, &weight, &count));
}

TEST_F(LabelWeightsTest, ManySmallTermsAddUpInFloat) {
  // 4 million terms of log(10): added in float they come out 7 % off.
  const int many = 1 << 22;
  const std::vector<float> prob(many, 0.1f), label(many, 0);
  const LabelGrid grid = {1, 1, many, false, 0};
  const float weight = 1;
  int count;
  const double loss = WeightedLoss(grid, prob.data(), label.data(), &weight, &count);
  EXPECT_NEAR(1, loss / (many * std::log(10.0)), 1e-6);
}

TEST_F(LabelWeightsTest, GradientIsThatOfDifferences) {
  const double scale = 0.25, step = 1e-6;
  std::vector<double> diff(score_.size(), 99);
  WeightedLossDiff(grid_, Softmax(score_).data(), label_.data(), weight_.data(), scale,
      diff.data());
  for (size_t at = 0; at < score_.size(); ++at) {
    int count;
    std::vector<double> up = score_, down = score_;
    up[at] += step;
    down[at] -= step;
    const double slope = (Loss(up, &count) - Loss(down, &count)) / (2 * step);
    EXPECT_NEAR(scale * slope, diff[at], 1e-8) << at;
  }
}

TEST_F(LabelWeightsTest, FindsLabelsThatNameNoChannel) {
  EXPECT_EQ(-1, FirstBadLabel(grid_, label_.data()));
  label_[6] = 3;
  EXPECT_EQ(6, FirstBadLabel(grid_, label_.data()));
  label_[2] = -1;
  EXPECT_EQ(2, FirstBadLabel(grid_, label_.data()));
  label_[0] = NAN;
  EXPECT_EQ(0, FirstBadLabel(grid_, label_.data()));
  // 255 often stands for "no label", and is no channel: it may be ignored.
  grid_.ignore_label = 255;
  label_.assign(label_.size(), 255);
  EXPECT_EQ(-1, FirstBadLabel(grid_, label_.data()));
}

}  // namespace caffe
