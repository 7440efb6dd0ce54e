"""Which hosts may be asked where somebody else names the URL."""

import re
from dataclasses import dataclass
from typing import Self

from yarl import URL

_ENTRY = re.compile(r"(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*|([a-z0-9_.-]+|\[[0-9a-f:.]+\]):[0-9]{1,5}")


@dataclass(frozen=True, slots=True)
class Hosts:
    """Names whose port is that of https, and `host:port` for what listens elsewhere, as the simulator does.

    `*.fal.media` is every name below fal.media, and not fal.media itself. Neither a dot at the end of a name nor a name
    in another alphabet is ever one of them.
    """

    entries: frozenset[str]

    @classmethod
    def of(cls, *entries: str) -> Self:
        """Raises ValueError."""
        lowered = [entry.lower() for entry in entries]
        if wrong := [entry for entry in lowered if not _ENTRY.fullmatch(entry)]:
            raise ValueError(f"must be a name, *.name, or host:port: {', '.join(wrong)}")
        return cls(frozenset(lowered))

    def permits(self, url: URL) -> bool:
        """Of a URL as it was read, because that is what is connected to."""
        host = url.raw_host or ""
        if url.scheme != "https" or url.port != 443:
            return f"[{host}]:{url.port}" in self.entries if ":" in host else f"{host}:{url.port}" in self.entries
        labels = host.split(".")
        families = ("*." + ".".join(labels[start:]) for start in range(1, len(labels)))
        return "" not in labels and (host in self.entries or any(family in self.entries for family in families))
