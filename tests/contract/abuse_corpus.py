"""The table of what nobody should send, and of the exact status that each of it gets.

Whatever the service itself refuses is problem+json. Broken HTTP framing never reaches it: uvicorn answers that with a
plain 400 and closes the connection. Details of single fields are in tests/unit/test_presentation_*.
"""

from dataclasses import dataclass, replace

CANARY = "zanzibar"
IMAGES = "/generations/images/text-to-image"
IMAGE_TO_IMAGE = "/generations/images/image-to-image"
VIDEOS = "/generations/videos/text-to-video"
USER_ID = "0b6f2a4e-5c1d-4e8f-9a3b-7d2c1e0f4a5b"
NO_HTTP = "invalid_http"


@dataclass(frozen=True)
class Row:
    """`{key}`, `{secret}`, `{job}`, `{foreign_job}` and the like in path and headers are filled in."""

    name: str
    status: int
    code: str = ""
    method: str = "POST"
    path: str = IMAGES
    body: bytes = b'{"prompt":"zanzibar"}'
    headers: tuple[str, ...] = ("X-API-Key: {key}", "Content-Type: application/json")
    # The whole request, where its framing is what is wrong.
    raw: bytes = b""
    is_without_body: bool = False

    def bytes_with(self, names: dict[str, str]) -> bytes:
        def filled(text: str) -> bytes:
            for name, value in names.items():
                text = text.replace(f"{{{name}}}", value)
            return text.encode("latin-1")

        if self.raw:
            return filled(self.raw.decode("latin-1"))
        lines = [f"{self.method} {self.path} HTTP/1.1", "Host: tollgate", *self.headers, "Connection: close"]
        head = b"\r\n".join(filled(line) for line in lines)
        length = b"" if self.method in ("GET", "HEAD") else f"\r\nContent-Length: {len(self.body)}".encode()
        return head + length + b"\r\n\r\n" + (self.body if length else b"")


def body(name: str, status: int, code: str, content: bytes, path: str = IMAGES) -> Row:
    return Row(name, status, code, path=path, body=content)


def field(name: str, text: str, path: str = IMAGES) -> Row:
    """The field is refused and nothing else is wrong."""
    return body(name, 422, "invalid_request", text.encode(), path)


def get(name: str, status: int, code: str, path: str, *headers: str) -> Row:
    return Row(name, status, code, "GET", path, b"", headers or ("X-API-Key: {key}",))


def pay(name: str, status: int, code: str, amount: str, *headers: str) -> Row:
    content = f'{{"external_user_id":"{USER_ID}","amount":{amount}}}'.encode()
    usual = ("X-Webhook-Secret: {secret}", "X-Event-Id: zanzibar")
    return Row(
        name, status, code, "POST", "/webhook/topup", content, ("Content-Type: application/json", *(headers or usual))
    )


def manage(  # noqa: PLR0917 - as the rows are read
    name: str, status: int, code: str, method: str, path: str, text: str = "{}", key: str = "key"
) -> Row:
    headers = (f"X-API-Key: {{{key}}}", "Content-Type: application/json")
    return Row(name, status, code, method, path, text.encode(), headers)


def upload(name: str, status: int, code: str, content: bytes, *headers: str, key: str = "key") -> Row:
    return Row(name, status, code, path="/files", body=content, headers=(f"X-API-Key: {{{key}}}", *headers))


def part(name: str, content: bytes = b"zanzibar") -> bytes:
    return f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'.encode() + content + b"\r\n"


def raw(name: str, status: int, code: str, head: str, content: bytes = b"") -> Row:
    return Row(name, status, code, raw=head.replace("\n", "\r\n").encode("latin-1") + content)


START = (
    "POST /generations/images/text-to-image HTTP/1.1\nHost: tollgate\nX-API-Key: {key}\nConnection: close\n"
    "Content-Type: application/json\n"
)
BALANCE = "GET /balance HTTP/1.1\nHost: tollgate\nConnection: close\n"
# Not plain loopback, which development takes for the simulator.
URLS = (
    "http://169.254.169.254/zanzibar",
    "http://2130706433/",
    "http://0x7f.1/",
    "http://0177.0.0.1/",
    "http://127.1/",
    "http://0/",
    "http://[::ffff:127.0.0.1]/",
    "http://127.0.0.1./",
    "http://localhost.localdomain/",
    "http://metadata.google.internal/",
    "https://zanzibar@example.com/",
    "https://example.com:22/",
    "https://example.com/#zanzibar",
    "https://example.com\\r\\nX-Zanzibar: 1/",
    "file:///etc/passwd",
    "gopher://example.com/",
    "ftp://example.com/",
    "javascript:zanzibar",
    "data:text/html;base64,AAAA",
    "data:image/png;base64,",
)
READING = "/keys/{reading_id}"
FORM = "Content-Type: multipart/form-data; boundary=b"
ENDPOINTS = "/webhook-endpoints"
ENDPOINT = ENDPOINTS + "/{endpoint}"
NEW_ENDPOINT = '{"url":"https://example.com/zanzibar"}'
# Webhooks go to any port.
WEBHOOK_URLS = tuple(url for url in URLS if url != "https://example.com:22/")
NEW_KEY = '{"name":"zanzibar","scopes":["read"]}'
MOMENTS = (
    '"zanzibar"',
    '""',
    "1",
    "true",
    "[]",
    '"2099-01-01"',
    '"2099-01-01T00:00:00"',
    '"2099-02-30T00:00:00Z"',
    '"2099-01-01T24:00:00Z"',
    '"2099-01-01T00:00:00.1234567Z"',
    '"2099-01-01T00:00:00+99:00"',
    '"0001-01-01T00:00:00+01:00"',
    '"9999-12-31T23:59:59-01:00"',
    '"2099-01-01t00:00:00Z\\u0000"',
)
LARGE = ("2147483648", "9007199254740993", "9223372036854775808", "18446744073709551616")
NUMBERS = ("NaN", "Infinity", "-Infinity", "1e999", "-1", *LARGE, "5.0", "true", '"5"', "[]", "{}")

ROWS = (
    *(
        body(f"malformed {content[:12]!r}", 400, "invalid_json", content)
        for content in (
            b"",
            b"{",
            b"[" * 100_000,
            b"<zanzibar/>",
            b'\xef\xbb\xbf{"prompt":"zanzibar"}',
            b'{"prompt":"zanzibar"}zanzibar',
            b'{"prompt":"zanzibar\xff"}',
            b'{"prompt":"zanzibar","prompt":"zanzibar"}',
            b'{"a":' * 2_000 + b"1" + b"}" * 2_000,
        )
    ),
    *(field(f"seed {text}", f'{{"prompt":"zanzibar","seed":{text}}}') for text in NUMBERS),
    *(
        field(f"num_images {text}", f'{{"prompt":"zanzibar","num_images":{text}}}')
        for text in (*NUMBERS, "0", "-0", "5")
    ),
    field("seed of 5,000 digits", f'{{"prompt":"zanzibar","seed":{"9" * 5000}}}'),
    *(
        field(f"prompt {text[:20]}", f'{{"prompt":{text}}}')
        for text in ('""', '" "', '"\\u0000"', '"\\ud800"', '"zanzibar\\u0000"', "null", "1", "[]", f'"{"z" * 2001}"')
    ),
    field("prompt of 1 MB", f'{{"prompt":"{"z" * 1_000_000}"}}'),
    field("prompt of a video, 801 characters", f'{{"prompt":"{"z" * 801}"}}', VIDEOS),
    field("unknown field", '{"prompt":"fox","zanzibar!":1}'),
    field("price from the caller", '{"prompt":"zanzibar","cost_tokens":1}'),
    field("five images", '{"prompt":"zanzibar","num_images":5}'),
    field("duration as a string", '{"prompt":"zanzibar","duration":"5"}', VIDEOS),
    field("duration of 6", '{"prompt":"zanzibar","duration":6}', VIDEOS),
    field("size of -1", '{"prompt":"zanzibar","image_size":{"width":-1,"height":400}}'),
    field("preset of 100,000 characters", f'{{"prompt":"zanzibar","image_size":"{"z" * 100_000}"}}'),
    *(
        field(f"image_urls {text}", f'{{"prompt":"zanzibar","image_urls":{text}}}', IMAGE_TO_IMAGE)
        for text in ("[]", "[1]", "[null]", "[{}]", '"https://example.com"', '["", "", ""]')
    ),
    *(field(f"url {url}", f'{{"prompt":"zanzibar","image_urls":["{url}"]}}', IMAGE_TO_IMAGE) for url in URLS),
    *(
        replace(
            body(f"content type {kind}", 415, "unsupported_media_type", b'{"prompt":"zanzibar"}'),
            headers=("X-API-Key: {key}", f"Content-Type: {kind}"),
        )
        for kind in ("", "text/plain", "application/xml", "multipart/form-data", "application/json; charset=utf-16")
    ),
    replace(body("no content type", 415, "unsupported_media_type", b"{}"), headers=("X-API-Key: {key}",)),
    Row(
        "compressed body",
        415,
        "unsupported_content_encoding",
        headers=("X-API-Key: {key}", "Content-Type: application/json", "Content-Encoding: gzip"),
    ),
    body("17 MiB", 413, "request_body_too_large", b'"' + b"z" * 17 * 1024**2),
    # Who it is
    get("no key", 401, "invalid_api_key", "/balance", "Accept: */*"),
    get("empty key", 401, "invalid_api_key", "/balance", "X-API-Key: "),
    get("prefix only", 401, "invalid_api_key", "/balance", "X-API-Key: tgk_"),
    get("unknown key, well formed", 401, "invalid_api_key", "/balance", "X-API-Key: {unknown_key}"),
    get("bad checksum", 401, "invalid_api_key", "/balance", "X-API-Key: {mistyped_key}"),
    get("replaced key", 401, "invalid_api_key", "/balance", "X-API-Key: {old_key}"),
    get("key in the query", 401, "invalid_api_key", "/balance?api_key={key}&X-API-Key={key}", "Accept: */*"),
    get(
        "another key as a bearer token",
        401,
        "invalid_api_key",
        "/balance",
        "X-API-Key: {key}",
        "Authorization: Bearer x",
    ),
    get("key as a password", 401, "invalid_api_key", "/balance", "Authorization: Basic {key}"),
    get("key of 10 KB", 401, "invalid_api_key", "/balance", f"X-API-Key: {'z' * 10_000}"),
    get("key that is no ASCII", 401, "invalid_api_key", "/balance", "X-API-Key: tgk_\xe9\xff"),
    Row(
        "take over an account",
        401,
        "proof_required",
        path="/auth",
        body=b'{"external_user_id":"{owner}","rotate":true}',
        headers=("Content-Type: application/json",),
    ),
    Row(
        "take over an account with another one's key",
        401,
        "proof_required",
        path="/auth",
        body=b'{"external_user_id":"{owner}","rotate":true}',
        headers=("Content-Type: application/json", "X-API-Key: {foreign_key}"),
    ),
    Row(
        "register a user again",
        409,
        "key_already_issued",
        path="/auth",
        body=b'{"external_user_id":"{owner}"}',
        headers=("Content-Type: application/json",),
    ),
    # Another tenant
    get("foreign job", 404, "job_not_found", "/generations/{foreign_job}"),
    get("stream of a foreign job", 404, "job_not_found", "/generations/{foreign_job}/stream"),
    get("wait for a foreign job", 404, "job_not_found", "/generations/{foreign_job}?wait=60"),
    get("events of a foreign job", 404, "job_not_found", "/events?job_id={foreign_job}"),
    Row("cancel of a foreign job", 404, "job_not_found", path="/generations/{foreign_job}/cancel", body=b""),
    manage("media of a foreign job", 404, "job_not_found", "DELETE", "/generations/{foreign_job}/media"),
    get("foreign file", 404, "file_not_found", "/files/{foreign_file}"),
    manage("deletion of a foreign file", 404, "file_not_found", "DELETE", "/files/{foreign_file}", ""),
    get("a link that nobody signed", 403, "link_not_valid", "/media/{job}-0/a.png?expires=99999999999&signature=A"),
    get("a link without its parts", 403, "link_not_valid", "/media/{job}-0/a.png"),
    get("a link to what is none", 403, "link_not_valid", "/media/..%5c{job}-0/a.png?expires=1&signature=%ff"),
    Row("a post to the page", 405, "method_not_allowed", path="/", body=b"", headers=()),
    get("a file of another release", 404, "not_found", "/studio/0000000000000000/main.js"),
    get("a file beside the page", 404, "not_found", "/studio/..%2fhttp%2fapi.py"),
    get("a link out of the store", 404, "not_found", "/media/..%2f..%2fetc/passwd?expires=1&signature=A"),
    Row(
        "webhook for a foreign job without a signature",
        401,
        "invalid_provider_event",
        path="/webhooks/fal/{foreign_job}",
        body=b"{}",
    ),
    *(
        manage(f"{method} of a foreign key", 404, "key_not_found", method, f"/keys/{{foreign_key_id}}{more}")
        for method, more in (("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/rotate"))
    ),
    *(
        manage(f"{method}{more} of {one[:17]}", 404, "endpoint_not_found", method, f"{ENDPOINTS}/{one}{more}", text)
        for one, event in (("{foreign_endpoint}", "{foreign_event}"), (USER_ID, "evt_1"), ("zanzibar", "evt_1"))
        for method, more, text in (
            ("GET", "", ""),
            ("PATCH", "", '{"is_enabled":false}'),
            ("DELETE", "", ""),
            ("POST", "/rotate-secret", "{}"),
            ("POST", "/test", ""),
            ("GET", "/deliveries", ""),
            ("POST", f"/deliveries/{event}/redeliver", ""),
            ("POST", "/replay", '{"after":0}'),
        )
    ),
    *(
        manage(
            f"redelivery of {text[:25]}",
            404,
            "delivery_not_found",
            "POST",
            f"{ENDPOINTS}/{{endpoint}}/deliveries/{text}/redeliver",
            "",
        )
        for text in ("{foreign_event}", "evt_1", "evt_01", "evt_-1", "evt_", "1", "EVT_1", "%00", f"evt_{'9' * 10_000}")
    ),
    *(
        manage(f"new endpoint {text[:50]}", 422, "invalid_request", "POST", ENDPOINTS, text)
        for text in (
            "{}",
            "[]",
            '{"url":null}',
            *(f'{{"url":"{url}"}}' for url in (*WEBHOOK_URLS, "http://example.com/zanzibar")),
            f'{{"url":"https://example.com/{"z" * 2048}"}}',
            '{"url":"https://example.com/","types":[]}',
            '{"url":"https://example.com/","types":["zanzibar"]}',
            '{"url":"https://example.com/","types":["webhook.test"]}',
            '{"url":"https://example.com/","types":"generation.completed"}',
            '{"url":"https://example.com/","description":"\\u0000"}',
            '{"url":"https://example.com/","secret":"whsec_zanzibar"}',
            '{"url":"https://example.com/","account_id":"zanzibar"}',
        )
    ),
    *(
        manage(f"replay after {text}", 422, "invalid_request", "POST", ENDPOINT + "/replay", f'{{"after":{text}}}')
        for text in NUMBERS
        if text != "2147483648"
    ),
    *(
        field(f"webhook of a job to {url[:40]}", f'{{"prompt":"fox","webhook_url":"{url}"}}')
        for url in (*WEBHOOK_URLS, "http://example.com/zanzibar")
    ),
    # What a key may not do
    manage("endpoints by a reading key", 403, "scope_missing", "GET", ENDPOINTS, "", "reading_key"),
    manage("endpoint of a starting key", 403, "scope_missing", "POST", ENDPOINTS, NEW_ENDPOINT, "starting_key"),
    manage("webhook secret by a reading key", 403, "scope_missing", "GET", "/webhook-secret", "", "reading_key"),
    manage("webhook secret, new", 403, "scope_missing", "POST", "/webhook-secret/rotate", "{}", "starting_key"),
    manage("generation by a reading key", 403, "scope_missing", "POST", IMAGES, '{"prompt":"zanzibar"}', "reading_key"),
    manage("cancel by a reading key", 403, "scope_missing", "POST", "/generations/{job}/cancel", "", "reading_key"),
    manage("media by a reading key", 403, "scope_missing", "DELETE", "/generations/{job}/media", "", "reading_key"),
    manage("balance by a starting key", 403, "scope_missing", "GET", "/balance", "", "starting_key"),
    manage("keys by a reading key", 403, "scope_missing", "GET", "/keys", "", "reading_key"),
    manage("key of a reading key", 403, "scope_missing", "POST", "/keys", NEW_KEY, "reading_key"),
    manage("key of a key with a budget", 403, "key_restricted", "POST", "/keys", NEW_KEY, "budgeted_key"),
    manage("end of another by a key with a budget", 403, "key_restricted", "DELETE", READING, "", "budgeted_key"),
    manage("rotation by a key with a budget", 403, "key_restricted", "POST", f"{READING}/rotate", "{}", "budgeted_key"),
    manage(
        "budget of its own", 403, "key_restricted", "PATCH", "/keys/{budgeted_id}", '{"budget":null}', "budgeted_key"
    ),
    manage("more than the budget", 402, "budget_exceeded", "POST", IMAGES, '{"prompt":"zanzibar"}', "budgeted_key"),
    manage("a key that changes itself", 403, "own_key", "PATCH", "/keys/{key_id}", '{"name":"zanzibar"}'),
    manage("a key that rotates itself", 403, "own_key", "POST", "/keys/{key_id}/rotate"),
    manage("a key that deletes itself by its id", 403, "own_key", "DELETE", "/keys/{key_id}", ""),
    *(
        manage(f"new key {text[:40]}", 422, "invalid_request", "POST", "/keys", text)
        for text in (
            "{}",
            "[]",
            "null",
            '{"name":"zanzibar","scopes":"generate"}',
            '{"name":"zanzibar","scopes":["generate","zanzibar"]}',
            '{"name":"zanzibar","scopes":["GENERATE"]}',
            '{"name":"zanzibar","scopes":[]}',
            '{"name":"zanzibar","scopes":[["generate"]]}',
            '{"name":"\\u0000","scopes":["read"]}',
            f'{{"name":"{"z" * 101}","scopes":["read"]}}',
            '{"name":"zanzibar","scopes":["read"],"account_id":"zanzibar"}',
            '{"name":"zanzibar","scopes":["read"],"api_key":"tgk_zanzibar"}',
            *(f'{{"name":"zanzibar","scopes":["read"],"expires_at":{text}}}' for text in MOMENTS),
            *(
                f'{{"name":"zanzibar","scopes":["read"],"budget":{{"tokens":{text},"per":"day"}}}}'
                for text in (*NUMBERS[:5], *NUMBERS[6:], "0", str(2**53))
            ),
            '{"name":"zanzibar","scopes":["read"],"budget":{"tokens":5}}',
            '{"name":"zanzibar","scopes":["read"],"budget":{"tokens":5,"per":"DAY"}}',
            '{"name":"zanzibar","scopes":["read"],"budget":{"tokens":5,"per":"day","spent_tokens":-5}}',
        )
    ),
    manage(
        "key that has expired",
        422,
        "not_in_the_future",
        "POST",
        "/keys",
        '{"name":"zanzibar","scopes":["read"],"expires_at":"2000-01-01T00:00:00Z"}',
    ),
    *(
        manage(f"change {text[:40]}", 422, "invalid_request", "PATCH", READING, text)
        for text in ('{"name":null}', '{"scopes":null}', '{"scopes":[]}', '{"is_first":true}', '{"id":"zanzibar"}')
    ),
    *(
        manage(f"overlap {text}", 422, "invalid_request", "POST", f"{READING}/rotate", f'{{"overlap_seconds":{text}}}')
        for text in (*NUMBERS, "604801")
    ),
    *(
        manage(f"key id {text[:20]}", 404, "key_not_found", "DELETE", f"/keys/{text}", "")
        for text in ("zanzibar", "%00", USER_ID, USER_ID.replace("-", ""), "Current", "z" * 10_000)
    ),
    # Money
    pay("payment without the secret", 401, "invalid_webhook_secret", "5", "X-Event-Id: zanzibar"),
    pay("payment with a wrong secret", 401, "invalid_webhook_secret", "5", "X-Webhook-Secret: zanzibar"),
    pay("payment with a user's key", 401, "invalid_webhook_secret", "5", "X-API-Key: {key}"),
    *(
        pay(f"amount {text}", 422, "invalid_request", text)
        for text in (
            "0",
            "-0",
            "-1",
            "1.5",
            "5.0",
            '"5"',
            "true",
            "null",
            "NaN",
            "Infinity",
            "1e999",
            str(10**12 + 1),
            str(2**64),
            "9" * 5000,
        )
    ),
    pay(
        "known event, another amount",
        409,
        "payment_event_conflict",
        "7",
        "X-Webhook-Secret: {secret}",
        "X-Event-Id: known",
    ),
    pay("event id of 256", 422, "invalid_request", "5", "X-Webhook-Secret: {secret}", f"X-Event-Id: {'z' * 256}"),
    pay("empty event id", 422, "invalid_request", "5", "X-Webhook-Secret: {secret}", "X-Event-Id: "),
    pay("event id that is no ASCII", 422, "invalid_request", "5", "X-Webhook-Secret: {secret}", "X-Event-Id: \xe9"),
    pay("two event ids", 422, "invalid_request", "5", "X-Webhook-Secret: {secret}", "X-Event-Id: a", "X-Event-Id: b"),
    body("too expensive", 402, "insufficient_balance", b'{"prompt":"zanzibar","duration":10}', VIDEOS),
    # Paths and methods
    *(
        get(f"path {path[:30]}", 404, "not_found", path)
        for path in (
            "/generations/../balance",
            "/generations/%2e%2e/%2e%2e/balance",
            "//balance",
            "/balance/",
            "/balance%00",
            "/zanzibar" * 1000,
            "/.env",
            "/generations/",
        )
    ),
    *(
        get(f"job id {text[:20]}", 404, "job_not_found", f"/generations/{text}")
        for text in (
            "zanzibar",
            "%00",
            "%2e%2e",
            f"%7B{USER_ID}%7D",
            f"urn:uuid:{USER_ID}",
            USER_ID.replace("-", ""),
            "1",
            "%27%20OR%201=1--",
            "z" * 10_000,
        )
    ),
    *(
        get(f"query {query[:30]}", 422, "invalid_request", f"/generations?{query}")
        for query in (
            "limit=0",
            "limit=101",
            "limit=zanzibar",
            "limit=5.0",
            "offset=-1",
            f"offset={2**63}",
            "limit=%00",
            "offset=" + "9" * 5000,
        )
    ),
    *(
        Row(f"method {method}", 405, "method_not_allowed", method, "/balance", b"", ("X-API-Key: {key}",))
        for method in ("TRACE", "PUT", "DELETE", "PATCH", "OPTIONS", "QUERY", "POST")
    ),
    Row("method HEAD", 200, "", "HEAD", "/balance", b"", ("X-API-Key: {key}",), is_without_body=True),
    Row("method HEAD without a key", 401, "", "HEAD", "/balance", headers=(), is_without_body=True),
    Row("method HEAD where only POST is", 405, "", "HEAD", "/auth", is_without_body=True),
    # Files
    upload("file of a reading key", 403, "scope_missing", b"GIF89a", key="reading_key"),
    upload("file of nobody", 401, "invalid_api_key", b"GIF89a", key="unknown_key"),
    upload("compressed file", 415, "unsupported_content_encoding", b"zanzibar", "Content-Encoding: gzip"),
    *(
        upload(f"file {content[:12]!r}", 422, "file_not_taken", content)
        for content in (
            b"",
            b"zanzibar",
            b"<svg><text>zanzibar</text></svg>",
            b"\x89PNG\r\n\x1a\nzanzibar",
            b"\0" * 10**6,
        )
    ),
    upload("form without a boundary", 400, "invalid_multipart", part("file"), "Content-Type: multipart/form-data"),
    upload("boundary of 300", 400, "invalid_multipart", b"", f"{FORM}{'b' * 300}"),
    *(
        upload(f"form {name}", 400, "invalid_multipart", content, FORM)
        for name, content in (
            ("of nothing", b""),
            ("that is none", b"zanzibar"),
            ("without parts", b"--b--\r\n"),
            ("without an end", part("file")),
            ("without a file", part("zanzibar") + b"--b--\r\n"),
            ("of two files", part("file") * 2 + b"--b--\r\n"),
            ("of 1,000 parts", part("zanzibar") * 1000 + part("file") + b"--b--\r\n"),
            ("with a header of 60 KB", b"--b\r\nX-Zanzibar: " + b"z" * 60_000 + b"\r\n\r\n\r\n--b--\r\n"),
            ("with a header that is none", b"--b\r\nzanzibar\r\n\r\n\r\n--b--\r\n"),
        )
    ),
    upload("form with a file of nothing", 422, "file_not_taken", part("file", b"") + b"--b--\r\n", FORM),
    *(
        get(f"file id {text[:20]}", 404, "file_not_found", f"/files/{text}")
        for text in (
            "zanzibar",
            "%00",
            USER_ID,
            USER_ID.replace("-", ""),
            "{job}",
            "z" * 10_000,
        )
    ),
    *(
        get(f"files of {query[:30]}", 422, "invalid_request", f"/files?{query}")
        for query in ("limit=0", "limit=101", "cursor=zanzibar", "cursor=", "cursor=%00")
    ),
    *(
        body(
            f"input {text[:24]}",
            422,
            "input_not_taken",
            f'{{"prompt":"zanzibar","image_urls":["{text}"]}}'.encode(),
            IMAGE_TO_IMAGE,
        )
        for text in (
            "file:{foreign_file}",
            f"file:{USER_ID}",
            "output:{foreign_job}/0",
            f"output:{USER_ID}/0",
            "output:{job}/0",
            "output:{job}/9999",
            "data:image/png;base64,iVBORw0KGgp6YW56aWJhcg==",
        )
    ),
    *(
        field(f"reference {text}", f'{{"prompt":"zanzibar","image_urls":["{text}"]}}', IMAGE_TO_IMAGE)
        for text in (
            "file:",
            "file:zanzibar",
            "file:/etc/passwd",
            "file:{{foreign_file}}",
            f"file:{USER_ID}/0",
            f"output:{USER_ID}",
            f"output:{USER_ID}/-1",
            f"output:{USER_ID}/00",
            f"output:{USER_ID}/10000",
        )
    ),
    # Headers and framing
    get("headers of 64 KB", 431, "request_headers_too_large", "/balance", f"X-Zanzibar: {'z' * 65_536}"),
    get("200 headers", 401, "invalid_api_key", "/balance", *(f"X-{number}: zanzibar" for number in range(200))),
    get("request id of 10 KB", 401, "invalid_api_key", "/balance", f"X-Request-Id: {'zanzibar' * 1250}"),
    raw("request id with a bare CR", 400, NO_HTTP, BALANCE + "X-Request-Id: a\rX-Zanzibar: 1\n\n"),
    raw("header with a NUL", 400, NO_HTTP, BALANCE + "X-Zanzibar: a\0b\n\n"),
    raw("obs-fold", 400, NO_HTTP, BALANCE + "X-Zanzibar: a\n b\n\n"),
    raw("space before the colon", 400, NO_HTTP, BALANCE + "X-Zanzibar : a\n\n"),
    raw("no host", 400, "invalid_host", "GET /balance HTTP/1.1\nX-API-Key: {key}\nConnection: close\n\n"),
    raw("two hosts", 400, "invalid_host", BALANCE + "Host: tollgate\n\n"),
    raw("host with a path", 400, "invalid_host", "GET /balance HTTP/1.1\nHost: a/zanzibar\nConnection: close\n\n"),
    raw("two hosts in one", 400, "invalid_host", "GET /balance HTTP/1.1\nHost: a, zanzibar\nConnection: close\n\n"),
    raw("no HTTP", 400, NO_HTTP, "zanzibar\n\n"),
    raw("HTTP/9.9", 400, NO_HTTP, "GET /balance HTTP/9.9\nHost: tollgate\n\n"),
    raw(
        "length and chunks",
        400,
        NO_HTTP,
        START + "Content-Length: 21\nTransfer-Encoding: chunked\n\n",
        b"0\r\n\r\n",
    ),
    raw("two lengths", 400, NO_HTTP, START + "Content-Length: 2\nContent-Length: 21\n\n", b'{"prompt":"zanzibar"}'),
    raw("negative length", 400, NO_HTTP, START + "Content-Length: -1\n\n"),
    raw("chunk size that is none", 400, NO_HTTP, START + "Transfer-Encoding: chunked\n\n", b"zanzibar\r\n"),
    raw("length below the body", 400, "invalid_json", START + "Content-Length: 5\n\n", b'{"prompt":"zanzibar"}'),
)
