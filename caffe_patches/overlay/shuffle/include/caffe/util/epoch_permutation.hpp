#ifndef CAFFE_UTIL_EPOCH_PERMUTATION_HPP_
#define CAFFE_UTIL_EPOCH_PERMUTATION_HPP_

#include <stdint.h>

#include <algorithm>  // swap was here before C++11
#include <cstddef>
#include <utility>
#include <vector>

// The order in which an epoch's records are read. Plain C++ that compiles and
// can be tested without Caffe. Unlike the standard library's shuffles it gives
// the same order on every machine.

namespace caffe {

/// The generator splitmix64 (Steele, Lea and Flood, 2014).
class SplitMix64 {
 public:
  explicit SplitMix64(const uint64_t state) : state_(state) {}

  /// The next 64 random bits.
  uint64_t Next() {
    state_ += 0x9e3779b97f4a7c15ULL;
    uint64_t bits = state_;
    bits = (bits ^ (bits >> 30)) * 0xbf58476d1ce4e5b9ULL;
    bits = (bits ^ (bits >> 27)) * 0x94d049bb133111ebULL;
    return bits ^ (bits >> 31);
  }

  /// A uniformly distributed number from 0 to bound - 1; bound is not 0.
  uint64_t Below(const uint64_t bound) {
    // Rejects the lowest 2^64 % bound values, which would bias the remainder.
    const uint64_t uneven = (0 - bound) % bound;
    uint64_t bits = Next();
    while (bits < uneven) {
      bits = Next();
    }
    return bits % bound;
  }

 private:
  uint64_t state_;
};

/// A generator for one epoch under one seed.
inline SplitMix64 EpochGenerator(const uint64_t seed, const uint64_t epoch) {
  // The seed passes through the generator twice, so that similar seeds and
  // successive epochs start far apart.
  const uint64_t seeded = SplitMix64(seed).Next();
  return SplitMix64(SplitMix64(seeded).Next() + epoch);
}

/**
 * @brief The order of an epoch: a permutation of 0 .. count - 1 that is a
 *        function of the seed, the epoch and the count alone, so that sources
 *        of equally many records stay in step.
 */
inline std::vector<size_t> EpochPermutation(const uint64_t seed,
    const uint64_t epoch, const size_t count) {
  std::vector<size_t> order(count);
  for (size_t i = 0; i < count; ++i) {
    order[i] = i;
  }
  SplitMix64 generator = EpochGenerator(seed, epoch);
  for (size_t i = count; i > 1; --i) {
    std::swap(order[i - 1], order[generator.Below(i)]);
  }
  return order;
}

}  // namespace caffe

#endif  // CAFFE_UTIL_EPOCH_PERMUTATION_HPP_
