"""A trained detector in the forms that products run: MXNet's symbol, ONNX, int8."""
