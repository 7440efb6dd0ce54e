"""The service dies at every fault point there is; what it promised holds all the same.

The points of webhooks, of media and of files are in files of their own: each file is the work of one process.
"""

import ast
import re
import socket
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fault.file_cases import FILE_CASES
from tests.fault.job_cases import JOB_CASES, Case
from tests.fault.killing import CASE_SECONDS_MAX, KILLS_PER_CASE, kill_at, open_world_of_kills
from tests.fault.line_cases import LINE_CASES
from tests.fault.media_cases import MEDIA_CASES
from tests.fault.other_cases import OTHER_CASES
from tests.fault.place_cases import PLACE_CASES
from tests.fault.webhook_cases import WEBHOOK_CASES
from tests.fault.world import Story, World

CASES = [*JOB_CASES, *LINE_CASES, *OTHER_CASES, *PLACE_CASES]
POINT = re.compile(r"`([a-z_]+\.[a-z_]+)`")

pytestmark = pytest.mark.timeout(CASE_SECONDS_MAX * KILLS_PER_CASE)

kills: Counter[str] = Counter()


@pytest.fixture(scope="module")
def world(postgres_dsn: str, template_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    directory = tmp_path_factory.mktemp("kills")
    with open_world_of_kills("kill_points", kills, directory, postgres_dsn, template_database) as world:
        yield world


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.point} {case.note}".rstrip())
def test_what_dies_at_a_point_loses_nothing(world: World, case: Case) -> None:
    kill_at(world, case, kills)


@pytest.mark.parametrize(("words", "end"), [("", "COMPLETED"), ("[webhook:never]", "FAILED unknown refunded")])
def test_a_kill_while_fal_holds_the_post_is_no_second_post(world: World, words: str, end: str) -> None:
    for _ in range(KILLS_PER_CASE):
        story = Story(world, f"[submit:hang:20] [slow:1] {words}")
        story.start()
        world.until(story.requests, "fal has the job")
        world.kill()
        assert story.disk() == "SUBMITTING"
        world.run()
        if words:
            story.until("SUBMITTING unknown")
            story.let_the_time_limit_pass()
        story.assert_right(end, posts=1)
        kills["during the POST, after fal has it"] += 1


def test_a_kill_while_the_post_is_on_its_way_is_no_second_post(world: World) -> None:
    """fal never gets it: something between takes the bytes and keeps them."""
    for _ in range(KILLS_PER_CASE):
        story = Story(world)
        with socket.create_server(("127.0.0.1", 0)) as hole:
            hole.settimeout(20)
            url = f"http://127.0.0.1:{hole.getsockname()[1]}"
            world.use(FAL_QUEUE_URL=url)
            world.process.wait_until_ready(world.url)
            story.start()
            taken, _ = hole.accept()
            with taken:
                taken.settimeout(20)
                assert taken.recv(4096).startswith(b"POST ")
                world.kill()
        assert story.disk() == "SUBMITTING"
        world.run()
        story.until("SUBMITTING unknown")
        story.let_the_time_limit_pass()
        story.assert_right("FAILED unknown refunded", posts=0)
        kills["during the POST, before fal has it"] += 1


def test_a_job_is_taken_although_the_queue_says_nothing(world: World) -> None:
    story = Story(world)
    world.sql("ALTER TABLE pgqueuer DISABLE TRIGGER USER")
    try:
        story.start()
        story.assert_right("COMPLETED", posts=1)
    finally:
        world.sql("ALTER TABLE pgqueuer ENABLE TRIGGER USER")


def points_in(app: Path) -> set[str]:
    """Every name that is reached, as the code writes it."""
    points: set[str] = set()
    for file in app.rglob("*.py"):
        if file.name in ("fault_points.py", "database.py"):
            continue
        for call in ast.walk(ast.parse(file.read_text())):
            if not isinstance(call, ast.Call) or not call.args:
                continue
            function, name = getattr(call.func, "id", getattr(call.func, "attr", None)), call.args[-1]
            if function in ("reach", "transaction", "driver_transaction", "driver_statement"):
                value = name.value if isinstance(name, ast.Constant) else None
                assert isinstance(value, str), f"{file}:{call.lineno}: a point needs a literal name"
                points |= {value} if function == "reach" else {f"{value}.{half}_commit" for half in ("before", "after")}
    return points


def test_there_is_a_story_for_every_point_of_the_code(project_dir: Path) -> None:
    points = points_in(project_dir / "app")

    assert len(points) > 40
    assert {case.point for case in [*CASES, *FILE_CASES, *MEDIA_CASES, *WEBHOOK_CASES]} == points


def test_the_documented_table_names_every_point(project_dir: Path) -> None:
    table = (project_dir / "docs" / "architecture.md").read_text().partition("## Where a process may die")[2]
    rows = [line for line in table.partition("\n## ")[0].splitlines() if line.startswith("|")]

    assert {point for row in rows for point in POINT.findall(row)} == points_in(project_dir / "app")
