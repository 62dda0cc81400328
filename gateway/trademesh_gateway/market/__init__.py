"""Bars and news, and the one way to read them: as of an instant."""
