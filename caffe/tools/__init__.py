"""Caffe's command-line tools, each a module: python -m caffe.tools.convert_imageset, ..."""
