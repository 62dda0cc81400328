"""The desk: roles and their rules. Nothing here knows gRPC, the journal or the clock."""
