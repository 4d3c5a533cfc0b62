"""Makes a checkout of BVLC Caffe run FuseNet's prototxts: `python -m caffe_patches`.

Our own sources (overlay/) are added and a few lines of ours (insertions/) are put into Caffe's
files, at places that short anchors name. Standard library only.
"""
