"""news_service: what became known when, and why a price moved, as far as figures can say (port 8002)."""
