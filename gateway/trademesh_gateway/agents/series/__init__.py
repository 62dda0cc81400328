"""Indicators of whole series: a row per session, oldest first, a column per ticker, NaN where a value is missing; the same shape comes back.

Pure functions of arrays. Each row sees itself and the rows before it, and is the same to the last bit however many rows follow. With fewer
observations in a row than a formula needs there is no value: a window is never shortened and nothing is filled in, so a missing price costs
its ticker as many sessions as a new one waits. `labels.py` puts values into words. What agents read each session, the newest value alone over
a point-in-time view, is `agents/indicators.py`'s.
"""
