"""The client of a served editor: from what an app asks for to pictures, over gRPC, HTTP or shared memory.

It knows the contract and nothing of the server that we start; `EditClient` is imported from `serving`.
"""
