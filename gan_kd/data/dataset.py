"""Detection data sets: images with boxes, read from VOC-format folders."""
from __future__ import annotations
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import NamedTuple
import cv2
import numpy as np
from gan_kd.recipe import Data

class Record(NamedTuple):
    id: str
    image: Path
    width: int
    height: int
    boxes: np.ndarray
    labels: np.ndarray
    difficult: np.ndarray

class DetectionDataset:
    def __init__(self, classes, records):
        self.classes, self.records = tuple(classes), records
        self.annotations = []
    def __len__(self):
        return len(self.records)
    def __getitem__(self, i):
        r = self.records[i]
        img = cv2.cvtColor(cv2.imread(str(r.image)), cv2.COLOR_BGR2RGB)
        return img, np.concatenate([r.boxes, r.labels[:, None], r.difficult[:, None]], 1).astype(np.float32)

def class_names(data: Data):
    return tuple(data.classes)

def open_split(data: Data, which: str) -> DetectionDataset:
    classes = class_names(data)
    records = []
    for split in getattr(data, which):
        year, name = split.split("/")
        base = Path(data.root) / f"VOC{year}"
        for id in (base / "ImageSets/Main" / f"{name}.txt").read_text().split():
            root = ET.parse(base / "Annotations" / f"{id}.xml").getroot()
            b, l, d = [], [], []
            for o in root.iter("object"):
                n = o.find("name").text.strip().lower()
                if n in classes:
                    bb = o.find("bndbox")
                    b.append([float(bb.find(k).text) - 1 for k in ("xmin", "ymin", "xmax", "ymax")])
                    l.append(classes.index(n)); d.append(o.find("difficult").text == "1")
            s = root.find("size")
            records.append(Record(id, base / "JPEGImages" / f"{id}.jpg", int(s.find("width").text), int(s.find("height").text), np.array(b, np.float32).reshape(-1, 4), np.array(l, np.int32), np.array(d, bool)))
    return DetectionDataset(classes, records)
