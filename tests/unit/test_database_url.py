"""DATABASE_URL as people have it: what the driver reads of it, what is left out, and what is refused by name."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from app.infrastructure.postgres.dsn import SSL_MODES, Dsn, plain_dsn
from app.infrastructure.settings import load_settings

BASE = "postgresql://user:password@host/name"
PASSWORD = "database-password-4711"

pytestmark = pytest.mark.usefixtures("bare_environment")


@pytest.mark.parametrize(
    ("given", "read"),
    [
        (f"{BASE}\n", BASE),
        (f" {BASE}\r\n", BASE),
        (f'"{BASE}"', BASE),
        (f"'{BASE}'\n", BASE),
        ("postgres://user:password@host/name", BASE),
        ("POSTGRESQL://user:password@host/name", BASE),
        ("postgresql+psycopg://user:password@host/name", BASE),
        ("postgresql+psycopg2://user:password@host/name", BASE),
        (f"{BASE}/", BASE),
        (f"{BASE}?", BASE),
        (f"{BASE}?sslmode=", BASE),
        (f"{BASE}?schema=public", f"{BASE}?search_path=public"),
        (f"{BASE}?currentSchema=shop", f"{BASE}?search_path=shop"),
        (f"{BASE}?schema=My-Shop", f"{BASE}?search_path=%22My-Shop%22"),
        (f"{BASE}?search_path=%22$user%22,public", f"{BASE}?search_path=%22%24user%22,public"),
        (f"{BASE}?ssl=true", f"{BASE}?sslmode=require"),
        (f"{BASE}?ssl=false", f"{BASE}?sslmode=disable"),
        (f"{BASE}?sslmode=no-verify", f"{BASE}?sslmode=require"),
        (f"{BASE}?sslmode=REQUIRE", f"{BASE}?sslmode=require"),
        (f"{BASE}?options=endpoint%3Dep-cool", f"{BASE}?options=endpoint%3Dep-cool"),
        (f"{BASE}?options=-c%20search_path%3Dshop", f"{BASE}?options=-c%20search_path%3Dshop"),
        (f"{BASE}?target_session_attrs=read-write", f"{BASE}?target_session_attrs=read-write"),
        ("postgresql:///?host=/tmp&user=user&password=p%20w&dbname=name", "postgresql://user:p%20w@/name?host=/tmp"),
        ("postgresql://user@/name?host=/tmp&port=5433", "postgresql://user@/name?host=/tmp&port=5433"),
        ("postgresql://one:1,two:2/name", "postgresql://one:1,two:2/name"),
        ("postgresql://user:password@[::1]:5432/name", "postgresql://user:password@[::1]:5432/name"),
        ("postgresql://user:password@host", "postgresql://user:password@host"),
    ],
)
def test_reads_what_is_meant(given: str, read: str) -> None:
    assert plain_dsn(given) == read
    # The form that is read is one that can be read.
    assert plain_dsn(read) == read


@pytest.mark.parametrize("mode", SSL_MODES[:4])
def test_takes_the_words_of_libpq_for_tls(mode: str) -> None:
    assert Dsn.read(f"{BASE}?sslmode={mode}").parameters == {"sslmode": mode}


@pytest.mark.parametrize("query", ["sslmode=verify-ca", "sslmode=verify-full", "sslaccept=strict"])
def test_verifies_by_the_certificates_of_the_machine_where_none_are_named(query: str) -> None:
    parameters = Dsn.read(f"{BASE}?{query}").parameters

    assert parameters["sslmode"].startswith("verify-")
    assert Path(parameters["sslrootcert"]).is_file()
    assert Dsn.read(f"{BASE}?{query}&sslrootcert=/own.crt").parameters["sslrootcert"] == "/own.crt"


def test_the_system_certificates_prove_the_name_too() -> None:
    parameters = Dsn.read(f"{BASE}?sslmode=require&sslrootcert=system").parameters

    assert parameters["sslmode"] == "verify-full"
    assert Path(parameters["sslrootcert"]).is_file()


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("p%40ss%2Fw", "p@ss/w"),
        ("p@ss", "p@ss"),
        ("p@s@s", "p@s@s"),
        ("p/ss", "p/ss"),
        ("p?s#s", "p?s#s"),
        ("p:ss", "p:ss"),
        ("100%", "100%"),
        ("p+s&s=1", "p+s&s=1"),
        ("pässwörd", "pässwörd"),
        ("%C3%A4", "ä"),
    ],
)
def test_takes_a_password_with_special_characters_percent_encoded_or_raw(written: str, meant: str) -> None:
    dsn = Dsn.read(f"postgresql://user:{written}@host:5432/name?sslmode=require")

    assert (dsn.user, dsn.password, dsn.hosts, dsn.database) == ("user", meant, "host:5432", "name")
    assert Dsn.read(dsn.text) == dsn


@pytest.mark.parametrize(
    ("query", "ignored"),
    [
        ("channel_binding=prefer", "channel_binding"),
        ("channel_binding=require&sslmode=require", "channel_binding"),
        ("pgbouncer=true&connection_limit=1&pool_timeout=20", "connection_limit pgbouncer pool_timeout"),
        ("connect_timeout=10", "connect_timeout"),
        ("application_name=shop&keepalives=1", "application_name keepalives"),
        ("supa=base-pooler.x&workaround=supabase-pooler.vercel", "supa workaround"),
        ("prepareThreshold=0&ApplicationName=x", "applicationname preparethreshold"),
        ("statement_cache_size=0&prepared_statements=false", "prepared_statements statement_cache_size"),
    ],
)
def test_leaves_out_what_has_no_meaning_here(query: str, ignored: str) -> None:
    dsn = Dsn.read(f"{BASE}?{query}")

    assert dsn.ignored == tuple(ignored.split())
    assert dsn.parameters.keys() <= {"sslmode"}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (f"{BASE}?sslmod=require", "has the unknown parameter sslmod: did you mean sslmode?"),
        ("postgresql://user@host/name?password=hunter&Tr0ub4dor", "has an unknown parameter beside the password: "),
        ("postgresql://user@host/name?password=hunter&sslmod3=x", "has an unknown parameter beside the password: "),
        ("postgresql://user@host/name?sslpassword=hunter&Tr0ub4dor", "has an unknown parameter beside the password: "),
        (f"{BASE}?colour=green", "has the unknown parameter colour: remove it"),
        (f"{BASE}?{PASSWORD}!=1", "has the unknown parameter (not a name): remove it"),
        (f"{BASE}?sslmode=maybe", "has a wrong sslmode: it must be one of disable, allow, prefer, require, verify-ca"),
        (f"{BASE}?target_session_attrs=writer", "has wrong target_session_attrs: they must be one of any, primary"),
        (f"postgresql://user:{PASSWORD}@host/name?port=http", "has a port that is not a number"),
        # The host might be a piece of the password, or the password be sent to a piece of the query.
        (f"postgresql://user:{PASSWORD}@host/name?options=me@corp", "must be a PostgreSQL URL"),
        (f"postgresql://user:{PASSWORD}@host:port/name", "must be a PostgreSQL URL"),
        (f"postgresql://user:{PASSWORD}\t@host/name", "must be a PostgreSQL URL"),
    ],
)
def test_refuses_in_one_line_that_names_what_is_wrong_and_never_the_password(given: str, said: str) -> None:
    with pytest.raises(ValueError, match=r"^(has|must)") as refused:
        Dsn.read(given)

    assert str(refused.value).startswith(said)
    assert PASSWORD not in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


def test_does_not_show_its_password() -> None:
    assert PASSWORD not in repr(Dsn.read(f"postgresql://user:{PASSWORD}@host/name?sslpassword={PASSWORD}"))


@pytest.mark.parametrize(
    ("given", "shares"),
    [({}, (6, 16)), ({"database_connections_max": 6}, (2, 4)), ({"database_connections_max": 4}, (2, 2)),
     ({"database_connections_max": 12}, (3, 9)), ({"database_connections_max": 100}, (6, 94))],
)  # fmt: skip
def test_splits_the_connections_of_a_process(given: Mapping[str, int], shares: tuple[int, int]) -> None:
    settings = load_settings(**given)

    assert (settings.runner_connections_max, settings.pool_connections_max) == shares


def test_no_name_beside_a_password_is_told() -> None:
    """It may be a piece of the password, with an & before it."""
    assert Dsn.read("postgresql://h/d?pgbouncer=true").ignored == ("pgbouncer",)
    assert Dsn.read("postgresql://h/d?password=a&pgbouncer=true").ignored == ()
