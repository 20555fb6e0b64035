"""The commands: one file each, its argument parser and the call."""
