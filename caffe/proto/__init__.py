"""The messages of caffe.proto; caffe_pb2 is generated from it when the package is installed."""

from caffe.proto import caffe_pb2 as caffe_pb2
