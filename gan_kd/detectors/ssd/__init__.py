"""SSD: extractor, head, loss and the networks of GluonCV's zoo."""
