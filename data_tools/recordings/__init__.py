"""Recordings of RGB-D cameras as sources of frames: one file for each kind of recording."""
