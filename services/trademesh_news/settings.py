"""Where news_service and the importer keep users' own news."""

from __future__ import annotations

from pathlib import Path

from pydantic_settings import BaseSettings, SettingsConfigDict


class NewsDataSettings(BaseSettings):
    """Settings of all that reads or writes imported news."""

    model_config = SettingsConfigDict(env_prefix="TRADEMESH_", extra="ignore", env_ignore_empty=True)

    data_dir: Path = Path("data")

    def imported_news(self) -> Path:
        """Where `trademesh data import-news` puts news: `<data_dir>/news/`. The folder may be absent."""
        return self.data_dir / "news"
