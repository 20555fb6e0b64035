"""The check of the data before a training."""
from gan_kd.data.dataset import open_split
def preflight(data):
    return open_split(data, "train"), open_split(data, "val")
