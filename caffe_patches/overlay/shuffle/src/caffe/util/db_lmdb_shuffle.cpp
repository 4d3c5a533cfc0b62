#ifdef USE_LMDB
#include "caffe/util/db_lmdb_shuffle.hpp"

#include <string>

#include "caffe/util/db_lmdb.hpp"
#include "caffe/util/epoch_permutation.hpp"

namespace caffe { namespace db {

Cursor* LMDB::NewShuffledCursor(const string& source, const uint64_t seed) {
  MDB_txn* mdb_txn;
  MDB_CHECK(mdb_txn_begin(mdb_env_, NULL, MDB_RDONLY, &mdb_txn));
  MDB_CHECK(mdb_dbi_open(mdb_txn, NULL, 0, &mdb_dbi_));
  return new LMDBShuffledCursor(mdb_txn, mdb_dbi_, source, seed);
}

LMDBShuffledCursor::LMDBShuffledCursor(MDB_txn* mdb_txn, MDB_dbi mdb_dbi,
    const string& source, const uint64_t seed)
  : mdb_txn_(mdb_txn), mdb_dbi_(mdb_dbi), source_(source), seed_(seed),
    epoch_(0), position_(0) {
  MDB_cursor* mdb_cursor;
  MDB_CHECK(mdb_cursor_open(mdb_txn_, mdb_dbi_, &mdb_cursor));
  MDB_val mdb_key;
  int mdb_status = mdb_cursor_get(mdb_cursor, &mdb_key, NULL, MDB_FIRST);
  while (mdb_status != MDB_NOTFOUND) {
    MDB_CHECK(mdb_status);
    keys_.push_back(mdb_key);
    mdb_status = mdb_cursor_get(mdb_cursor, &mdb_key, NULL, MDB_NEXT);
  }
  mdb_cursor_close(mdb_cursor);
  CHECK(!keys_.empty()) << source_ << " holds no records to shuffle.";
  SeekToFirst();
}

LMDBShuffledCursor::~LMDBShuffledCursor() {
  mdb_txn_abort(mdb_txn_);
}

void LMDBShuffledCursor::SeekToFirst() {
  if (position_ > 0) {
    ++epoch_;
  }
  order_ = EpochPermutation(seed_, epoch_, keys_.size());
  position_ = 0;
}

MDB_val LMDBShuffledCursor::CurrentKey() {
  CHECK(valid()) << "No record left in this epoch of " << source_;
  return keys_[order_[position_]];
}

string LMDBShuffledCursor::key() {
  const MDB_val mdb_key = CurrentKey();
  return string(static_cast<const char*>(mdb_key.mv_data), mdb_key.mv_size);
}

string LMDBShuffledCursor::value() {
  MDB_val mdb_key = CurrentKey();
  MDB_val mdb_value;
  MDB_CHECK(mdb_get(mdb_txn_, mdb_dbi_, &mdb_key, &mdb_value));
  return string(static_cast<const char*>(mdb_value.mv_data),
      mdb_value.mv_size);
}

}  // namespace db
}  // namespace caffe
#endif  // USE_LMDB
