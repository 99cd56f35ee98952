"""What exporter, run folders, servers and clients agree on, each thing said once.

`named_edit` is what a name means, `catalog` the file in which a run keeps its names, `published` where a served model
keeps them; `documents` reads YAML and JSON from anybody and `arrays` numbers. Only the standard library, PyYAML and
numpy are used here (and Triton's protobufs, once a model's configuration is read), so everything above may import it;
of `serving` nothing but `serving.errors` is.
"""
