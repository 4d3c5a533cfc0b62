#ifndef CAFFE_UTIL_UNPOOL_HPP_
#define CAFFE_UTIL_UNPOOL_HPP_

// The index mapping of memorized unpooling, one plane at a time. Plain C++:
// nothing of Caffe is needed to compile or to test it.

namespace caffe {

/// Whether a mask's entry names a place among the first count of a plane.
template <typename Dtype>
inline bool InPlane(const Dtype place, const int count) {
  return place >= Dtype(0) && place < Dtype(count);  // false for NaN
}

/**
 * @brief Puts each pooled value at the place that the mask gives it.
 *
 * Places that no value is sent to become 0. Where several are sent to one
 * place (overlapping pooling windows), the last one stays.
 *
 * @param pooled the values, pooled_count of them
 * @param mask for each value its flat index into the unpooled plane
 * @param unpooled the plane of unpooled_count values to fill
 * @return -1, or the position of the first mask entry that lies outside of the
 *     unpooled plane, which is then incomplete
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
 * Where several values share a place, each reads that place's whole diff,
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
