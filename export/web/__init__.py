"""A page that edits in the browser: the editor's graph, ONNX Runtime Web and the studio's parts, for any static host.

`pipeline` is the whole way, from a run folder to a page. `weights` rounds what is stored, `smallest` finds how far,
`memory` says whether a browser holds it, `runtime` gets ONNX Runtime Web, `markup` and `page` write the files.
`static/` is what the page has beyond the studio's parts: an engine in place of a server.
"""
