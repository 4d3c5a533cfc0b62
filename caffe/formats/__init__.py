"""Caffe's files, read and written."""
