"""Distillation methods: each turns teacher and student feature maps into named losses for the student."""
