"""Faster R-CNN on one map of stride 16: GluonCV's network taken apart, its targets, loss and detections."""
