"""GAN-Knowledge Distillation for one-stage object detection (arXiv 1906.08467) on MXNet, Gluon and GluonCV."""

__version__ = "0.1.0"
