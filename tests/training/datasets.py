"""Data sets that harm the process that reads them; without MXNet, so that loader workers can have them."""

import os
import signal

from gan_kd.data.dataset import DetectionDataset


class Interrupting(DetectionDataset):
    """Sends its process a SIGTERM when one image is read."""

    def __init__(self, dataset, at):
        super().__init__(dataset.classes, dataset.records)
        self.at = at

    def image(self, index, reduction=1):
        if index == self.at:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().image(index, reduction)


class Deadly(DetectionDataset):
    """Ends the process that reads its sixth image: a loader worker."""

    def image(self, index, reduction=1):
        if index == 5:
            os._exit(3)
        return super().image(index, reduction)
