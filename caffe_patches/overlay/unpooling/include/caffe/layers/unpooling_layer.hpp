#ifndef CAFFE_UNPOOLING_LAYER_HPP_
#define CAFFE_UNPOOLING_LAYER_HPP_

#include <vector>

#include "caffe/blob.hpp"
#include "caffe/layer.hpp"
#include "caffe/proto/caffe.pb.h"

namespace caffe {

/**
 * @brief Sends pooled values back to where max pooling found them.
 *
 * The output is zero everywhere else. Where pooling windows overlap, several
 * values may be sent to the same place: the last one stays, and in the backward
 * pass each of them reads that place's diff. On the GPU the result is the same
 * in every run.
 *
 * @param bottom input Blob vector (length 2)
 *   -# @f$ (N \times C \times H \times W) @f$
 *      the pooled values
 *   -# @f$ (N \times C \times H \times W) @f$
 *      the mask, second top of a PoolingLayer (MAX): flat indices into one
 *      channel's plane of the output
 * @param top output Blob vector (length 1)
 *   -# @f$ (N \times C \times H' \times W') @f$
 *      where @f$ H', W' @f$ are output_h and output_w, else scale times
 *      @f$ H, W @f$
 */
template <typename Dtype>
class UnpoolingLayer : public Layer<Dtype> {
 public:
  /**
   * @param param provides UnpoolingParameter unpooling_param, with options:
   *  - output_h, output_w. The output's size. Pooling rounds up, so odd sizes
   *    must be given here.
   *  - scale. The output's size as a multiple of the input's; used if output_h
   *    and output_w are not given.
   */
  explicit UnpoolingLayer(const LayerParameter& param)
      : Layer<Dtype>(param) {}
  virtual void LayerSetUp(const vector<Blob<Dtype>*>& bottom,
      const vector<Blob<Dtype>*>& top);
  virtual void Reshape(const vector<Blob<Dtype>*>& bottom,
      const vector<Blob<Dtype>*>& top);

  virtual inline const char* type() const { return "Unpooling"; }
  virtual inline int ExactNumBottomBlobs() const { return 2; }
  virtual inline int ExactNumTopBlobs() const { return 1; }
  /// The mask holds indices, so it has no gradient.
  virtual inline bool AllowForceBackward(const int bottom_index) const {
    return bottom_index == 0;
  }

 protected:
  virtual void Forward_cpu(const vector<Blob<Dtype>*>& bottom,
      const vector<Blob<Dtype>*>& top);
  virtual void Forward_gpu(const vector<Blob<Dtype>*>& bottom,
      const vector<Blob<Dtype>*>& top);
  virtual void Backward_cpu(const vector<Blob<Dtype>*>& top,
      const vector<bool>& propagate_down, const vector<Blob<Dtype>*>& bottom);
  virtual void Backward_gpu(const vector<Blob<Dtype>*>& top,
      const vector<bool>& propagate_down, const vector<Blob<Dtype>*>& bottom);

  /// The number of planes (N times C), and the number of values in each.
  int planes_;
  int pooled_count_;
  int unpooled_count_;
};

}  // namespace caffe

#endif  // CAFFE_UNPOOLING_LAYER_HPP_
