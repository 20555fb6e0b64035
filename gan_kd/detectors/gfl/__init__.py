"""Generalized Focal Loss, a one-stage detector whose box edges are distributions (Li et al., arXiv 2006.04388)."""
