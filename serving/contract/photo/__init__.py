"""A photo of anybody's: read within bounds, cut to the size of a generator's pictures, and pasted back.

`reader` turns files into pixels, `crop` is the map between a photo and the generator's frame, `keep` adds only what an
edit changed. `faces` finds faces and `align` lays them where the generator has its own. All of it is numpy and Pillow;
only whoever looks for faces needs LiteRT, and the two networks that `face_models` reads.
"""
