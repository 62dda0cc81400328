"""One run on disk: its folder, its configuration, its journal, and the feed that reads a journal.

layout      where things are
bootstrap   BOOTSTRAP.md and the typed configuration
journal     the events: encoding, writing, reading, checking
fold        from events to the state at a sequence
feed_service   the events by RPC, live and finished
summary     what a finished run amounts to, and the proof of it
exports     files for dashboards, derived from the state
"""
