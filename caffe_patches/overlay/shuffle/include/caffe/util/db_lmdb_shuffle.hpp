#ifdef USE_LMDB
#ifndef CAFFE_UTIL_DB_LMDB_SHUFFLE_HPP_
#define CAFFE_UTIL_DB_LMDB_SHUFFLE_HPP_

#include <stdint.h>

#include <string>
#include <vector>

#include "lmdb.h"

#include "caffe/util/db.hpp"

namespace caffe { namespace db {

/**
 * @brief Reads every record once an epoch, in a new order each epoch.
 *
 * Next() after the epoch's last record makes the cursor invalid. SeekToFirst()
 * starts the next epoch, unless no Next() was called since the epoch began.
 * Skipped records are not read.
 */
class LMDBShuffledCursor : public Cursor {
 public:
  /// Takes ownership of the (read-only) transaction.
  LMDBShuffledCursor(MDB_txn* mdb_txn, MDB_dbi mdb_dbi, const string& source,
      const uint64_t seed);
  virtual ~LMDBShuffledCursor();
  virtual void SeekToFirst();
  virtual void Next() { ++position_; }
  virtual string key();
  virtual string value();
  virtual bool valid() { return position_ < order_.size(); }

 private:
  MDB_val CurrentKey();

  MDB_txn* mdb_txn_;
  MDB_dbi mdb_dbi_;
  string source_;
  uint64_t seed_;
  uint64_t epoch_;
  size_t position_;
  vector<size_t> order_;
  /// The keys in LMDB's own memory, where they stay during a transaction.
  vector<MDB_val> keys_;
};

}  // namespace db
}  // namespace caffe

#endif  // CAFFE_UTIL_DB_LMDB_SHUFFLE_HPP_
#endif  // USE_LMDB
