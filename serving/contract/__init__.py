"""What exporter, run folders, servers and clients agree on, each thing said once.

`manifest` is how a served editor describes itself, `layout` where its files lie; `latents` turns seeds into codes,
`edits` words into arrays, `recipe` a picture back into a request. `named_edit` is what a name means, `catalog` the file
in which a run keeps its names, `published` where a served model keeps them; `layers` is how a person writes layers.
`documents` reads YAML and JSON from anybody and `arrays` numbers; `lock`, `journal` and `files` let nothing be lost.
`photo` reads pictures of anybody's, and finds the faces in them; `litert` and `wheels` bring networks that do.
Only the standard library, PyYAML and numpy are used here (Pillow in `photo`, LiteRT once a face is looked for, and
Triton's protobufs once a model's configuration is read), so everything above may import it; of `serving` nothing but
`serving.errors` is.
"""
