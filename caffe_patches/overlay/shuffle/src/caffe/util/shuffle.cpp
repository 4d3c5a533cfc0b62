#include "caffe/util/shuffle.hpp"

#include <boost/thread/mutex.hpp>

#include <string>

#include "caffe/util/db_lmdb.hpp"
#include "caffe/util/math_functions.hpp"

namespace caffe {

// One seed for the whole process. Caffe::Get() would not do: it is per thread,
// and each rank has its own random generator.
static boost::mutex shuffle_seed_mutex_;
static bool has_shuffle_seed_ = false;
static uint64_t shuffle_seed_ = 0;

void SetShuffleSeed(const int64_t seed) {
  if (seed < 0) {
    return;
  }
  boost::mutex::scoped_lock lock(shuffle_seed_mutex_);
  has_shuffle_seed_ = true;
  shuffle_seed_ = seed;
}

uint64_t ShuffleSeed() {
  boost::mutex::scoped_lock lock(shuffle_seed_mutex_);
  if (!has_shuffle_seed_) {
    has_shuffle_seed_ = true;
    if (Caffe::multiprocess()) {
      LOG_IF(WARNING, Caffe::root_solver())
          << "Shuffling from seed 0, the only one that all processes know: "
          << "set the solver's random_seed for another order.";
    } else {
      shuffle_seed_ = caffe_rng_rand();
    }
  }
  return shuffle_seed_;
}

namespace db {

void ShuffleCursor(const DataParameter& param, DB* db,
    shared_ptr<Cursor>* cursor) {
  if (!param.shuffle()) {
    return;
  }
#ifdef USE_LMDB
  LMDB* lmdb = dynamic_cast<LMDB*>(db);
  CHECK(lmdb != NULL) << param.source()
      << " cannot be shuffled: that takes backend: LMDB.";
  cursor->reset(lmdb->NewShuffledCursor(param.source(), ShuffleSeed()));
  LOG_IF(INFO, Caffe::root_solver())
      << "Shuffling " << param.source() << " each epoch.";
#else
  LOG(FATAL) << param.source()
      << " cannot be shuffled: this Caffe is built without LMDB.";
#endif  // USE_LMDB
}

}  // namespace db
}  // namespace caffe
