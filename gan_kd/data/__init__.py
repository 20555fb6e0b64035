"""Images with boxes: data sets, their check, drawing and download, augmentation, batches."""
