"""Average precision as PASCAL VOC and COCO define it, and the evaluation of networks."""
