"""The disk side of Packhouse; knows nothing of HTTP."""
