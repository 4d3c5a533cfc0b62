"""The messages of Caffe's files and of its forks' texts, as `caffe_pb2`.

Installing the package generates caffe_pb2 from caffe.proto, basic_pb2 from basic.proto (what the
others share) and forks_pb2 from forks.proto; caffe_pb2 has the names of all three.
"""

from caffe.proto import caffe_pb2 as caffe_pb2
