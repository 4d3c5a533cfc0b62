"""Metrics, prediction, pictures and reports for labelled RGB-D frames."""
