"""Content-based image retrieval: codes of images, the nearest of them, and how good they are.

codes.py      images to codes: of any model and layer, pooled; L2 normalization; PCA
search.py     the exact nearest codes of a gallery, in chunks, over all devices
measures.py   precision at k, mean average precision, MAP@R
images.py     images as a model takes them, and their codes batch by batch
index.py      a gallery's codes in a folder, and when they may be used again
find.py       the neighbors of a user's images in a gallery
"""
