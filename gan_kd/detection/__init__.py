"""Detection in images and videos with a params file."""
