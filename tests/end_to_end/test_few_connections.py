"""A plan with few connections: the service keeps to them, and still does its work."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.end_to_end.test_database_faults import run_app
from tests.end_to_end.test_other_postgres import finished_job
from tests.service_process import ServiceProcess
from tests.simulator_server import running_simulator
from tests.strict_postgres import dsn_of, execute, strict_postgres

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with strict_postgres() as dsn:
        yield dsn


@pytest.mark.parametrize("connections", [4, 6, 12])
def test_works_with_as_few_connections_as_it_is_told(server: str, tmp_path: Path, connections: int) -> None:
    role = f"few_{connections}"
    execute(
        server,
        f"CREATE ROLE {role} LOGIN PASSWORD 'right' CONNECTION LIMIT {connections}",
        f"CREATE DATABASE {role} OWNER {role}",
        "SELECT 1",
    )
    url = dsn_of(server, role, database=role)
    with running_simulator(queue_seconds=0.1, run_seconds_image=0.2) as simulator:
        settings = {
            "DATABASE_URL": url,
            "DATABASE_CONNECTIONS_MAX": str(connections),
            "FAL_KEY": "test:key",
            "FAL_QUEUE_URL": simulator,
            "DATA_DIR": str(tmp_path),
        }
        with ServiceProcess(tmp_path / "service.log", settings) as service:
            service.wait_until_ready()
            with ThreadPoolExecutor(10) as pool:
                jobs = list(pool.map(lambda _: finished_job(service.url), range(30)))
            used = execute(server, f"SELECT count(*) FROM pg_stat_activity WHERE usename = '{role}'")
        log = service.output()

    assert [job["status"] for job in jobs] == ["COMPLETED"] * 30
    assert used <= connections
    assert "database_failed" not in log
    assert run_app(tmp_path, url, "ledger", "verify").returncode == 0


def test_a_plan_with_20_says_so_at_the_start(server: str, tmp_path: Path) -> None:
    execute(
        server,
        "CREATE ROLE plan LOGIN PASSWORD 'right' CONNECTION LIMIT 20",
        "CREATE DATABASE plan OWNER plan",
        "SELECT 1",
    )

    outcome = run_app(tmp_path, dsn_of(server, "plan", database="plan"), "migrate")

    assert outcome.returncode == 0
    assert "the role has 20 connections, 0 of them in use; this process opens up to 22" in outcome.stderr
    assert "DATABASE_CONNECTIONS_MAX to 6" in outcome.stderr
