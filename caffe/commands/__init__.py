"""The `caffe` command, and what all commands share."""
