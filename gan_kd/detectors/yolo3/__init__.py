"""YOLOv3 (Redmon and Farhadi, arXiv 1804.02767) as GluonCV has it, in parts."""
