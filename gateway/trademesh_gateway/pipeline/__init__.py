"""The cycle of a session and the controller that drives it."""
