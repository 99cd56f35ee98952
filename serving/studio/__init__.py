"""The studio: a web page that turns a served editor into sliders.

`latentclr studio` starts it. It is a client of Triton like any other: a page, a small HTTP API with an OpenAPI
document, and a catalog of named edits in a YAML file. It needs the extra `studio` (fastapi, uvicorn, pyyaml).
"""
