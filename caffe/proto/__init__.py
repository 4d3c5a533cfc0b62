"""The messages of caffe.proto; caffe_pb2 is generated from it when the package is installed."""
