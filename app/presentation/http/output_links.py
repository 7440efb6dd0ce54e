"""Links to outputs and files, as the answers have them."""

from collections.abc import Callable
from dataclasses import dataclass

from starlette.requests import HTTPConnection

from app.application.ports.media import MediaLinks
from app.domain.files import KeptFile
from app.domain.outputs import Output
from app.presentation.http.state import state_of


@dataclass(frozen=True, slots=True)
class OutputLinks:
    links: MediaLinks
    base_url: Callable[[], str]

    def __call__(self, output: Output) -> str:
        query = self.links.query_for(str(output.id), output.kept.expires_at)
        return f"{self.base_url()}/media/{output.id}/{output.name}?{query}"

    def to_file(self, file: KeptFile) -> str:
        query = self.links.query_for(str(file.id), file.expires_at)
        return f"{self.base_url()}/media/{file.id}/{file.name}?{query}"


def links_in(request: HTTPConnection) -> OutputLinks:
    """For the answer to this request: by PUBLIC_URL, or else by the address at which the caller found us."""
    state = state_of(request.scope)
    public_url = state.public_url
    base_url = (lambda: public_url) if public_url is not None else (lambda: str(request.base_url).rstrip("/"))
    return OutputLinks(state.use_cases.media.links, base_url)
