"""URLs of S3 that say which headers the answer has, which obstore cannot sign.

It signs one without them, with what it knows of the endpoint, the region and the form of the bucket's address. Here the
parameters are put in and the signature is made again: AWS Signature Version 4 in the query, as
https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html says it; `response-content-type` and its
like are those of https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObject.html.
"""

import hashlib
import hmac
from collections.abc import Mapping
from urllib.parse import parse_qsl, quote, urlsplit, urlunsplit

_ALGORITHM = "AWS4-HMAC-SHA256"


class Presigner:
    def __init__(self, access_key_id: str, secret_access_key: str) -> None:
        self._access_key_id = access_key_id
        self._secret_access_key = secret_access_key

    def with_parameters(self, url: str, parameters: Mapping[str, str]) -> str | None:
        """None where the URL was signed with other credentials than these."""
        parts = urlsplit(url)
        signed = dict(parse_qsl(parts.query, keep_blank_values=True))
        access_key_id, _, scope = signed["X-Amz-Credential"].partition("/")
        if access_key_id != self._access_key_id:
            return None
        asked = {name: value for name, value in signed.items() if name != "X-Amz-Signature"} | dict(parameters)
        query = "&".join(f"{_encoded(name)}={_encoded(asked[name])}" for name in sorted(asked))
        request = f"GET\n{parts.path}\n{query}\nhost:{parts.netloc}\n\nhost\nUNSIGNED-PAYLOAD"
        digest = hashlib.sha256(request.encode()).hexdigest()
        signature = self._signature(f"{_ALGORITHM}\n{asked['X-Amz-Date']}\n{scope}\n{digest}", scope)
        return urlunsplit(parts._replace(query=f"{query}&X-Amz-Signature={signature}"))

    def _signature(self, text: str, scope: str) -> str:
        key = f"AWS4{self._secret_access_key}".encode()
        # Its parts are the day, the region, the service and a fixed word.
        for part in scope.split("/"):
            key = hmac.digest(key, part.encode(), "sha256")
        return hmac.digest(key, text.encode(), "sha256").hex()


def _encoded(text: str) -> str:
    return quote(text, safe="-_.~")
