"""Further classifiers of GluonCV's model zoo that can carry an SSD, as names: recipes are read without GluonCV."""

from __future__ import annotations

# Their taps are found by stride (gan_kd/detectors/taps.py); squeezenet has no map of stride 32 and needs taps.
BY_STRIDE = (
    "resnet34_v1", "resnet101_v1", "resnet152_v1", "resnet18_v2", "resnet34_v2", "resnet50_v2", "resnet18_v1b",
    "resnet50_v1b", "resnet101_v1b", "resnet152_v1b", "resnet50_v1c", "resnet101_v1c", "resnet152_v1c",
    "resnet50_v1d", "resnet101_v1d", "resnet152_v1d", "resnet50_v1s", "resnet101_v1s", "resnet152_v1s",
    "se_resnet18_v1", "se_resnet34_v1", "se_resnet50_v1", "se_resnet101_v1", "se_resnet152_v1", "resnext50_32x4d",
    "resnext101_32x4d", "resnext101_64x4d", "se_resnext50_32x4d", "se_resnext101_32x4d", "se_resnext101_64x4d",
    "senet_154", "resnest14", "resnest26", "resnest50", "resnest101", "vgg11", "vgg13", "vgg16", "vgg19", "vgg11_bn",
    "vgg13_bn", "vgg16_bn", "vgg19_bn", "densenet121", "densenet161", "densenet169", "densenet201", "inceptionv3",
    "darknet53", "mobilenetv2_0.25", "mobilenetv2_0.5", "mobilenetv2_0.75", "mobilenetv3_small", "mobilenetv3_large",
    "shufflenet_v1", "shufflenet_v2", "squeezenet1.0", "squeezenet1.1",
)  # fmt: skip
