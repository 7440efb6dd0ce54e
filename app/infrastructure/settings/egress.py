"""The ways out of a network that lets nothing through by itself. The names are those that other programs know, too."""

import ssl
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator
from pydantic_settings import NoDecode

from app.infrastructure.egress import Egress, Proxy


def _proxy(value: Any) -> Any:
    return Proxy.parse(value) if isinstance(value, str) else value


def _is_certificates(file: Path) -> Path:
    try:
        Egress(certificates_file=file).verifying_tls()
    except ssl.SSLError:
        raise ValueError("must be a file of certificates in PEM form") from None
    except OSError as error:
        raise ValueError(f"must be a file that can be read ({error.strerror})") from None
    return file


ProxySetting = Annotated[Proxy | None, NoDecode, BeforeValidator(_proxy)]


class EgressSettings(BaseModel):
    https_proxy: ProxySetting = None
    http_proxy: ProxySetting = None
    all_proxy: ProxySetting = None
    no_proxy: str = ""
    webhook_proxy: ProxySetting = None
    ssl_cert_file: Annotated[Path, AfterValidator(_is_certificates)] | None = None
    ssl_cert_dir: Path | None = None

    @property
    def egress(self) -> Egress:
        return Egress(
            https_proxy=self.https_proxy or self.all_proxy,
            http_proxy=self.http_proxy or self.all_proxy,
            no_proxy=self.no_proxy,
            certificates_file=self.ssl_cert_file,
            certificates_directory=self.ssl_cert_dir,
        )
