#ifndef CAFFE_UTIL_UNPOOL_HPP_
#define CAFFE_UTIL_UNPOOL_HPP_

// The index mapping of unpooling with a mask, one plane at a time. Plain C++
// that compiles and can be tested without Caffe.

namespace caffe {

/// Whether a mask entry points into a plane of count values.
template <typename Dtype>
inline bool InPlane(const Dtype place, const int count) {
  return place >= Dtype(0) && place < Dtype(count);  // false for NaN
}

/**
 * @brief Puts each pooled value at the place that its mask entry points to.
 *
 * All other places become 0. If several values are sent to the same place
 * (overlapping pooling windows), the last one stays.
 *
 * @param pooled the pooled_count values
 * @param mask for each value its flat index into the unpooled plane
 * @param unpooled the plane of unpooled_count values to fill
 * @return -1, or the position of the first mask entry outside the unpooled
 *     plane, which is then incomplete
 */
template <typename Dtype>
inline int UnpoolPlane(const Dtype* pooled, const Dtype* mask,
    const int pooled_count, Dtype* unpooled, const int unpooled_count) {
  for (int i = 0; i < unpooled_count; ++i) {
    unpooled[i] = Dtype(0);
  }
  for (int i = 0; i < pooled_count; ++i) {
    if (!InPlane(mask[i], unpooled_count)) {
      return i;
    }
    unpooled[static_cast<int>(mask[i])] = pooled[i];
  }
  return -1;
}

/**
 * @brief Reads for each pooled value the diff at its place.
 *
 * If several values share a place, each reads the whole diff of that place,
 * although only the last of them reached the output.
 *
 * @return as UnpoolPlane
 */
template <typename Dtype>
inline int UnpoolPlaneDiff(const Dtype* unpooled_diff,
    const int unpooled_count, const Dtype* mask, const int pooled_count,
    Dtype* pooled_diff) {
  for (int i = 0; i < pooled_count; ++i) {
    if (!InPlane(mask[i], unpooled_count)) {
      return i;
    }
    pooled_diff[i] = unpooled_diff[static_cast<int>(mask[i])];
  }
  return -1;
}

}  // namespace caffe

#endif  // CAFFE_UTIL_UNPOOL_HPP_
