"""The database's URL as hosters, libpq, Prisma and others write it, in the one form that the driver reads."""

import re
import ssl
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Self
from urllib.parse import quote, unquote

import certifi

_SCHEME = re.compile(r"postgres(?:ql)?(?:\+[a-z0-9_]+)?://", re.ASCII | re.IGNORECASE)
_HOST = r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~%-]*)(?::[0-9]{1,5})?"
# What may follow the `@` of the user. A slash, a `?`, a `#` or an `@` before it belongs to the password.
_PLACE = re.compile(
    rf"(?P<hosts>{_HOST}(?:,{_HOST})*)(?:/(?P<database>[^/?#@\s]*))?/?(?:\?(?P<query>[^#\s]*))?", re.ASCII
)
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.]{0,40}", re.ASCII)

_PLAIN_SCHEMA = re.compile(r'[a-z_][a-z0-9_]*|"[^"]+"|\$user', re.ASCII)

SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_SSL_WORDS = {"true": "require", "1": "require", "on": "require", "false": "disable", "0": "disable", "off": "disable"}
_SSL_WORDS |= {"no-verify": "require", "verify_ca": "verify-ca", "verify_full": "verify-full", "strict": "verify-full"}
_SSL_WORDS |= {"accept_invalid_certs": "require", **{mode: mode for mode in SSL_MODES}}
_SESSION_ATTRIBUTES = ("any", "primary", "standby", "read-write", "read-only", "prefer-standby")
_SYSTEM_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")

# By these the driver connects as libpq would. Names are compared without their case.
_UNDERSTOOD_NAMES = """
host port dbname user password passfile sslmode sslcert sslkey sslrootcert sslcrl sslpassword sslnegotiation
ssl_min_protocol_version ssl_max_protocol_version target_session_attrs krbsrvname gsslib options search_path service
"""
# What has no meaning here: the service sets it itself, or the driver cannot do it.
_IGNORED_NAMES = """
application_name fallback_application_name channel_binding connect_timeout connection_limit pool_timeout pool pool_size
pool_mode pool_max pool_min min_size max_size max_connections pgbouncer statement_cache_size
prepared_statement_cache_size prepared_statement_name_func prepared_statements preparedstatements preparethreshold
prepare_threshold command_timeout socket_timeout sockettimeout logintimeout statement_timeout lock_timeout
idle_in_transaction_session_timeout idle_timeout max_lifetime max_idle_connection_lifetime single_use_connections
sslidentity sslcompression sslsni sslcertmode sslcrldir requirepeer require_auth requiressl gssencmode gssdelegation
keepalives keepalives_idle keepalives_interval keepalives_count tcp_user_timeout tcpkeepalive load_balance_hosts
loadbalancehosts client_encoding encoding charset timezone hostaddr uselibpqcompat supa workaround adapter reconnect
async_fallback read_timeout write_timeout autosave binarytransfer applicationname
"""
_OTHER_NAMES = {
    "database": "dbname",
    "username": "user",
    "schema": "search_path",
    "currentschema": "search_path",
    "ssl": "sslmode",
    "ssl_mode": "sslmode",
    "sslaccept": "sslmode",
    "targetservertype": "target_session_attrs",
}
_PARTS = {"user", "password", "dbname"}
_PASSWORD_IN_QUERY = re.compile(r"(?:^|&)(?:ssl)?password=", re.IGNORECASE)
_UNDERSTOOD = frozenset(_UNDERSTOOD_NAMES.split())
_IGNORED = frozenset(_IGNORED_NAMES.split())
_KNOWN = _UNDERSTOOD | _OTHER_NAMES.keys() | _IGNORED


@dataclass(frozen=True, slots=True)
class Dsn:
    """Raises ValueError, without anything of what was given, where it cannot be read."""

    user: str
    password: str = field(repr=False)
    hosts: str
    database: str
    parameters: Mapping[str, str] = field(repr=False)
    ignored: tuple[str, ...]
    """The names of parameters that have no meaning here."""

    @classmethod
    def read(cls, given: str) -> Self:
        text = _without_quotes(given)
        scheme = _SCHEME.match(text)
        readings = list(_readings(text[scheme.end() :])) if scheme else []
        if len(readings) != 1:
            # Two are as bad as none: the password might go to a host that is a part of it.
            raise ValueError(
                "must be a PostgreSQL URL, postgresql://user:password@host:5432/database, "
                "with special characters of the password percent-encoded"
            )
        userinfo, place = readings[0]
        user, _, password = userinfo.partition(":")
        query = place["query"] or ""
        # What follows a password with an & in it is a piece of it: then no name is told.
        may_show = _PASSWORD_IN_QUERY.search(query) is None
        parameters = _parameters(query, may_show=may_show)
        understood = {name: value for name, value in parameters.items() if name not in _IGNORED}
        return cls(
            user=understood.pop("user", "") or unquote(user),
            password=understood.pop("password", "") or unquote(password),
            hosts=place["hosts"],
            database=understood.pop("dbname", "") or unquote(place["database"] or ""),
            parameters=_with_certificates(understood),
            ignored=tuple(sorted(parameters.keys() - understood.keys() - _PARTS)) if may_show else (),
        )

    @property
    def text(self) -> str:
        """The URL that the driver reads."""
        userinfo = quote(self.user, safe="") + (f":{quote(self.password, safe='')}" if self.password else "")
        # A user without a host has the host among the parameters.
        at = "@" if userinfo else ""
        query = "&".join(f"{name}={quote(value, safe='/,:')}" for name, value in self.parameters.items())
        database = f"/{quote(self.database, safe='')}" if self.database else ""
        return f"postgresql://{userinfo}{at}{self.hosts}{database}{'?' if query else ''}{query}"

    @property
    def place(self) -> str:
        """Where the database is, for a sentence to the operator."""
        return unquote(self.hosts) or self.parameters.get("host", "") or "this machine"


def plain_dsn(dsn: str) -> str:
    """The form that asyncpg reads. Raises ValueError."""
    return Dsn.read(dsn).text


def _without_quotes(given: str) -> str:
    """As it was meant: a line break at the end comes from a file, quotes come from `docker run --env-file`."""
    text = given.strip()
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        text = text[1:-1].strip()
    return text


def _readings(rest: str) -> Iterator[tuple[str, re.Match[str]]]:
    """Each user with a password and each place that the text may stand for."""
    ats = [index for index, character in enumerate(rest) if character == "@"]
    for start in ats or [-1]:
        userinfo = rest[: max(start, 0)]
        place = _PLACE.fullmatch(rest, start + 1)
        if place is not None and userinfo.isprintable():
            yield userinfo, place


def _parameters(query: str, *, may_show: bool) -> dict[str, str]:
    parameters: dict[str, str] = {}
    for pair in query.split("&") if query else []:
        given_name, _, value = pair.partition("=")
        name = _known_name(given_name, may_show=may_show)
        if value:
            parameters[name] = _checked(name, unquote(value).strip())
    return parameters


def _known_name(given: str, *, may_show: bool) -> str:
    name = given.lower()
    if name in _KNOWN:
        return _OTHER_NAMES.get(name, name)
    if not may_show:
        raise ValueError("has an unknown parameter beside the password: percent-encode the & of a password, as %26")
    # What does not look like a name may be a piece of a password, too.
    shown = given if _NAME.fullmatch(given) else "(not a name)"
    near = get_close_matches(name, sorted(_UNDERSTOOD), n=1, cutoff=0.8)
    hint = f"did you mean {near[0]}?" if near else "remove it"
    raise ValueError(f"has the unknown parameter {shown}: {hint}")


def _checked(name: str, value: str) -> str:
    check = _CHECKS.get(name)
    return value if check is None else check(value)


def _ssl_mode(value: str) -> str:
    try:
        return _SSL_WORDS[value.lower()]
    except KeyError:
        raise ValueError(f"has a wrong sslmode: it must be one of {', '.join(SSL_MODES)}") from None


def _session_attributes(value: str) -> str:
    if value not in _SESSION_ATTRIBUTES:
        raise ValueError(f"has wrong target_session_attrs: they must be one of {', '.join(_SESSION_ATTRIBUTES)}")
    return value


def _port(value: str) -> str:
    if not re.fullmatch(r"[0-9]{1,5}(,[0-9]{1,5})*", value, re.ASCII):
        raise ValueError("has a port that is not a number")
    return value


def _schemas(value: str) -> str:
    """As SQL takes them: `schema=My-Shop` is one name, in which the case counts."""
    names = (name.strip() for name in value.split(","))
    return ",".join(name if _PLAIN_SCHEMA.fullmatch(name) else quoted(name.strip('"')) for name in names)


def quoted(name: str) -> str:
    """A name as SQL takes it."""
    return '"' + name.replace('"', '""') + '"'


_CHECKS: Mapping[str, Callable[[str], str]] = {
    "sslmode": _ssl_mode,
    "target_session_attrs": _session_attributes,
    "port": _port,
    "search_path": _schemas,
}


def _with_certificates(parameters: Mapping[str, str]) -> Mapping[str, str]:
    """With a file of certificates where those of the machine are meant: the driver knows files alone."""
    mode, root = parameters.get("sslmode"), parameters.get("sslrootcert")
    if root == "system":
        # As in libpq, where they would prove nothing with less.
        return {**parameters, "sslmode": "verify-full", "sslrootcert": _system_certificates()}
    if mode in ("verify-ca", "verify-full") and root is None and not _own_root().exists():
        return {**parameters, "sslrootcert": _system_certificates()}
    return parameters


def _own_root() -> Path:
    return Path("~/.postgresql/root.crt").expanduser()


def _system_certificates() -> str:
    paths = ssl.get_default_verify_paths()
    candidates = [paths.cafile, str(_SYSTEM_CERTIFICATES), certifi.where()]
    return next(path for path in candidates if path is not None and Path(path).is_file())
