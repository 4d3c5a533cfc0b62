#ifndef CAFFE_UTIL_SHUFFLE_HPP_
#define CAFFE_UTIL_SHUFFLE_HPP_

#include <stdint.h>

#include "caffe/common.hpp"
#include "caffe/proto/caffe.pb.h"
#include "caffe/util/db.hpp"

namespace caffe {

/**
 * @brief Sets the seed that all shuffling in this process starts from.
 *
 * Solvers give their random_seed, without the rank that is added to it
 * elsewhere: the ranks have to agree on the order. A negative seed means none
 * and changes nothing. Cursors made before keep theirs.
 */
void SetShuffleSeed(const int64_t seed);

/**
 * @brief The seed that all shuffling in this process starts from.
 *
 * If none was set, one is drawn at the first call, and it is 0 where the ranks
 * are processes of their own, which cannot agree on a drawn one.
 */
uint64_t ShuffleSeed();

namespace db {

/// Gives the cursor a new order each epoch, if the layer's parameter asks.
void ShuffleCursor(const DataParameter& param, DB* db,
    shared_ptr<Cursor>* cursor);

}  // namespace db
}  // namespace caffe

#endif  // CAFFE_UTIL_SHUFFLE_HPP_
