"""Metrics, prediction, images and reports for labelled RGB-D frames."""
