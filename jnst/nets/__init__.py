"""Networks, one in each file: plain functions of parameters and an image."""
