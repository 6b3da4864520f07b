"""How the names of imagery end."""

PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
RASTERS = (".tif", ".tiff")
