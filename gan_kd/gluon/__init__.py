"""What MXNet and Gluon lack; nothing here knows a detector."""
