"""`scripts/bench SUITE`: how fast the mesh is, as ratios against the bare library in the same run. Nothing here is a test."""
