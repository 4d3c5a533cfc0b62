#ifndef CAFFE_UTIL_SHUFFLE_HPP_
#define CAFFE_UTIL_SHUFFLE_HPP_

#include <stdint.h>

#include "caffe/common.hpp"
#include "caffe/proto/caffe.pb.h"
#include "caffe/util/db.hpp"

namespace caffe {

/**
 * @brief Sets the seed of all shuffling in this process.
 *
 * Solvers pass their random_seed, without the rank that is added to it
 * elsewhere, because the ranks must agree on the order. A negative seed means
 * none and changes nothing. Existing cursors keep their seed.
 */
void SetShuffleSeed(const int64_t seed);

/**
 * @brief The seed of all shuffling in this process.
 *
 * If none was set, the first call draws one. If the ranks are separate
 * processes, which could not agree on a drawn seed, it is 0.
 */
uint64_t ShuffleSeed();

namespace db {

/// Makes the cursor shuffle each epoch, if param.shuffle() is set.
void ShuffleCursor(const DataParameter& param, DB* db,
    shared_ptr<Cursor>* cursor);

}  // namespace db
}  // namespace caffe

#endif  // CAFFE_UTIL_SHUFFLE_HPP_
