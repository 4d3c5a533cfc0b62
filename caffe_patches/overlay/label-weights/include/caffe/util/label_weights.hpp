#ifndef CAFFE_UTIL_LABEL_WEIGHTS_HPP_
#define CAFFE_UTIL_LABEL_WEIGHTS_HPP_

#include <algorithm>
#include <cfloat>
#include <cmath>

// The weighted softmax loss over a grid of labels, and its gradient. Plain C++
// that compiles and can be tested without Caffe.

namespace caffe {

/**
 * @brief The memory layout of probabilities and labels, and the ignored label.
 *
 * Probabilities are outer x channels x inner, labels outer x inner.
 */
struct LabelGrid {
  int outer;
  int channels;
  int inner;
  bool has_ignore_label;
  int ignore_label;

  template <typename Dtype>
  bool Ignored(const Dtype label) const {
    return has_ignore_label && static_cast<int>(label) == ignore_label;
  }
};

/// The position of the first label neither ignored nor a channel, or -1.
template <typename Dtype>
inline int FirstBadLabel(const LabelGrid& grid, const Dtype* label) {
  for (int i = 0; i < grid.outer * grid.inner; ++i) {
    const bool named =
        label[i] > Dtype(-1) && label[i] < Dtype(grid.channels);
    if (!grid.Ignored(label[i]) && !named) {
      return i;
    }
  }
  return -1;
}

/**
 * @brief The sum of -weight[label] log(prob[label]) over the labels that
 *        count; *count is set to their number.
 *
 * Probabilities are clamped at FLT_MIN. Every label that counts must name a
 * channel (see FirstBadLabel).
 */
template <typename Dtype>
inline Dtype WeightedLoss(const LabelGrid& grid, const Dtype* prob,
    const Dtype* label, const Dtype* weight, int* count) {
  double loss = 0;  // a float would lose precision over a frame's many terms
  *count = 0;
  for (int i = 0; i < grid.outer; ++i) {
    for (int j = 0; j < grid.inner; ++j) {
      if (grid.Ignored(label[i * grid.inner + j])) {
        continue;
      }
      const int k = static_cast<int>(label[i * grid.inner + j]);
      const Dtype p = prob[(i * grid.channels + k) * grid.inner + j];
      loss -= weight[k] * std::log(std::max(p, Dtype(FLT_MIN)));
      ++*count;
    }
  }
  return static_cast<Dtype>(loss);
}

/**
 * @brief WeightedLoss's gradient with respect to the softmax's input:
 *        scale weight[label] (prob[k] - [k is label]), 0 for ignored labels.
 */
template <typename Dtype>
inline void WeightedLossDiff(const LabelGrid& grid, const Dtype* prob,
    const Dtype* label, const Dtype* weight, const Dtype scale, Dtype* diff) {
  for (int i = 0; i < grid.outer; ++i) {
    for (int j = 0; j < grid.inner; ++j) {
      const Dtype l = label[i * grid.inner + j];
      const bool ignored = grid.Ignored(l);
      const Dtype w = ignored ? Dtype(0) : scale * weight[static_cast<int>(l)];
      for (int k = 0; k < grid.channels; ++k) {
        const int at = (i * grid.channels + k) * grid.inner + j;
        const Dtype hit = k == static_cast<int>(l);
        diff[at] = ignored ? Dtype(0) : w * (prob[at] - hit);
      }
    }
  }
}

/// The number of labels that count.
template <typename Dtype>
inline int CountLabels(const LabelGrid& grid, const Dtype* label) {
  int count = 0;
  for (int i = 0; i < grid.outer * grid.inner; ++i) {
    count += !grid.Ignored(label[i]);
  }
  return count;
}

}  // namespace caffe

#endif  // CAFFE_UTIL_LABEL_WEIGHTS_HPP_
