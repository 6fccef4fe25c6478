"""Fast style transfer: a stylenet trained once (`training.py`), a picture in one pass (`painting.py`), in tiles where
it is large (`tiled.py`)."""
