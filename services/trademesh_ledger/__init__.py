"""Exact accounting and the metrics over it. Pure: no I/O, no clock, no gRPC, and no floats where there is money.

money              whole micro-dollars and their rounding
costs              fees, slippage, ticks
portfolio          the account and what a fill does to it
margin             what may be filled
rejections         why it may not
execution          orders at one moment: price, check, fill
corporate_actions  dividends, splits, delistings
borrow             the cost of short positions
maintenance        margin calls and forced liquidation
account            all of these in the sequence of a session
metrics            ratios over a series of net asset values
scores             how good predictions were
baselines          what the same money would be worth by simple rules
"""
