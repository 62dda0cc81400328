"""runtime_service: starts, watches and stops runs (port 8003)."""
