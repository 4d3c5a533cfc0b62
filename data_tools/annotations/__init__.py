"""Labels from labelling tools: CVAT, LabelMe, COCO, Label Studio."""
