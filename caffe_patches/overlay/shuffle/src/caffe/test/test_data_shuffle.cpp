#ifdef USE_LMDB
#include <algorithm>
#include <string>
#include <vector>

#include "boost/scoped_ptr.hpp"
#include "gtest/gtest.h"

#include "caffe/blob.hpp"
#include "caffe/common.hpp"
#include "caffe/layers/data_layer.hpp"
#include "caffe/sgd_solvers.hpp"
#include "caffe/util/db.hpp"
#include "caffe/util/format.hpp"
#include "caffe/util/io.hpp"
#include "caffe/util/shuffle.hpp"

#include "caffe/test/test_caffe_main.hpp"

namespace caffe {

using boost::scoped_ptr;

const int kRecords = 11;

template <typename TypeParam>
class DataShuffleTest : public MultiDeviceTest<TypeParam> {
  typedef typename TypeParam::Dtype Dtype;

 protected:
  // Records of one pixel, labelled 0, 1, ...
  virtual void SetUp() {
    MakeTempDir(&source_);
    source_ += "/lmdb";
    scoped_ptr<db::DB> db(db::GetDB("lmdb"));
    db->Open(source_, db::NEW);
    scoped_ptr<db::Transaction> txn(db->NewTransaction());
    for (int i = 0; i < kRecords; ++i) {
      Datum datum;
      datum.set_label(i);
      datum.set_channels(1);
      datum.set_height(1);
      datum.set_width(1);
      datum.set_data(string(1, static_cast<char>(i)));
      string value;
      CHECK(datum.SerializeToString(&value));
      txn->Put(format_int(i, 8), value);
    }
    txn->Commit();
    SetShuffleSeed(1701);
  }

  virtual void TearDown() {
    Caffe::set_solver_count(1);
    Caffe::set_solver_rank(0);
  }

  // The labels that a layer reads in this many batches of one record.
  vector<int> Read(const int batches, const bool shuffle = true) {
    LayerParameter layer_param;
    layer_param.set_phase(TRAIN);
    DataParameter* data_param = layer_param.mutable_data_param();
    data_param->set_batch_size(1);
    data_param->set_source(source_);
    data_param->set_backend(DataParameter_DB_LMDB);
    data_param->set_shuffle(shuffle);
    Blob<Dtype> data, label;
    vector<Blob<Dtype>*> bottom, top;
    top.push_back(&data);
    top.push_back(&label);
    DataLayer<Dtype> layer(layer_param);
    layer.SetUp(bottom, top);
    vector<int> labels;
    for (int i = 0; i < batches; ++i) {
      layer.Forward(bottom, top);
      labels.push_back(label.cpu_data()[0]);
      EXPECT_EQ(labels[i], data.cpu_data()[0]);  // the record's own data
    }
    return labels;
  }

  // The labels of one epoch, in order.
  static vector<int> Epoch(const vector<int>& labels, const int epoch) {
    return vector<int>(labels.begin() + epoch * kRecords,
        labels.begin() + (epoch + 1) * kRecords);
  }

  static void ExpectEachOnce(vector<int> labels) {
    ASSERT_EQ(kRecords, labels.size());
    std::sort(labels.begin(), labels.end());
    for (int i = 0; i < kRecords; ++i) {
      EXPECT_EQ(i, labels[i]);
    }
  }

  string source_;
};

TYPED_TEST_CASE(DataShuffleTest, TestDtypesAndDevices);

TYPED_TEST(DataShuffleTest, TestEachRecordOnceAnEpoch) {
  const vector<int> labels = this->Read(4 * kRecords);
  for (int epoch = 0; epoch < 4; ++epoch) {
    this->ExpectEachOnce(this->Epoch(labels, epoch));
  }
}

TYPED_TEST(DataShuffleTest, TestNewOrderEachEpoch) {
  const vector<int> labels = this->Read(3 * kRecords);
  const vector<int> unshuffled = this->Read(kRecords, false);
  EXPECT_NE(unshuffled, this->Epoch(labels, 0));
  EXPECT_NE(this->Epoch(labels, 0), this->Epoch(labels, 1));
  EXPECT_NE(this->Epoch(labels, 0), this->Epoch(labels, 2));
  EXPECT_NE(this->Epoch(labels, 1), this->Epoch(labels, 2));
}

TYPED_TEST(DataShuffleTest, TestSeed) {
  const vector<int> labels = this->Read(2 * kRecords);
  // The thread's own random seed has no effect.
  Caffe::set_random_seed(17);
  EXPECT_EQ(labels, this->Read(2 * kRecords));
  SetShuffleSeed(1702);
  EXPECT_NE(labels, this->Read(2 * kRecords));
  SetShuffleSeed(-1);  // means none: the last seed stays
  EXPECT_EQ(1702, ShuffleSeed());
  SetShuffleSeed(1701);
  EXPECT_EQ(labels, this->Read(2 * kRecords));
}

TYPED_TEST(DataShuffleTest, TestRanksShareAnEpoch) {
  // Rank r of 3 reads positions r, r + 3, ... of one common order, across
  // epochs: in three epochs of 11 records, each rank reads 11.
  const int ranks = 3;
  Caffe::set_solver_count(1);
  const vector<int> common = this->Read(ranks * kRecords);
  Caffe::set_solver_count(ranks);
  vector<int> together(ranks * kRecords);
  for (int rank = 0; rank < ranks; ++rank) {
    Caffe::set_solver_rank(rank);
    Caffe::set_random_seed(100 + rank);  // as solvers do
    const vector<int> labels = this->Read(kRecords);
    for (int i = 0; i < kRecords; ++i) {
      together[i * ranks + rank] = labels[i];
    }
  }
  EXPECT_EQ(common, together);
  for (int epoch = 0; epoch < ranks; ++epoch) {
    this->ExpectEachOnce(this->Epoch(together, epoch));
  }
}

TYPED_TEST(DataShuffleTest, TestSolverSetsTheSeedWithoutItsRank) {
  typedef typename TypeParam::Dtype Dtype;
  SolverParameter solver_param;
  solver_param.set_random_seed(1234);
  solver_param.set_base_lr(0.1);
  solver_param.set_lr_policy("fixed");
  solver_param.set_solver_mode(Caffe::mode() == Caffe::CPU ?
      SolverParameter_SolverMode_CPU : SolverParameter_SolverMode_GPU);
  solver_param.mutable_net_param()->set_name("empty");
  Caffe::set_solver_count(2);
  Caffe::set_solver_rank(1);
  SGDSolver<Dtype> solver(solver_param);
  EXPECT_EQ(1234, ShuffleSeed());
}

}  // namespace caffe
#endif  // USE_LMDB
