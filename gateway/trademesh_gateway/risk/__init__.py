"""Limits on every order, whoever it comes from."""
