"""trading_service: recorded market data and the accounts of runs, read only (port 8001)."""
