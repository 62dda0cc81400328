"""The edge: one WebSocket on :8765 through which browsers make the mesh's gRPC calls, and the page that does so.

It knows no domain but `FeedService.Subscribe`, which it shares among browsers; everything else passes as bytes. It owns no state.
"""
