"""fal's own Python client, unmodified but for its host constants, against the simulator."""

import io
from collections.abc import AsyncIterator
from pathlib import Path

import fal_client
import fal_client.client
import httpx
import pytest
from PIL import Image

TEXT_TO_IMAGE = "fal-ai/wan-25-preview/text-to-image"


@pytest.fixture
async def client(fal_simulator: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[fal_client.AsyncClient]:
    monkeypatch.setattr(fal_client.client, "QUEUE_URL_FORMAT", f"{fal_simulator}/")
    monkeypatch.setattr(fal_client.client, "REST_URL", fal_simulator)
    monkeypatch.setattr(fal_client.client, "CDN_URL", fal_simulator)
    client = fal_client.AsyncClient(key="id:secret")
    yield client
    await (await client._client).aclose()


async def download(client: fal_client.AsyncClient, url: str) -> httpx.Response:
    return await (await client._client).get(url)


async def test_submits_follows_and_gets_the_result(client: fal_client.AsyncClient) -> None:
    handle = await client.submit(TEXT_TO_IMAGE, {"prompt": "a boat", "seed": 5, "num_images": 2})
    status = await handle.status(with_logs=True)
    result = await handle.get()

    assert isinstance(status, fal_client.Completed)
    assert status.logs
    assert status.error is None
    assert result["seeds"] == [5, 6]
    assert len(result["images"]) == 2


async def test_sees_the_queue_and_the_run(client: fal_client.AsyncClient, fal_simulator: str) -> None:
    running = await client.submit(TEXT_TO_IMAGE, {"prompt": "[slow:60]"})
    await (await client._client).post(f"{fal_simulator}/_sim/config", json={"queue_seconds": 60})
    first = await client.submit(TEXT_TO_IMAGE, {"prompt": "a boat"})
    second = await client.submit(TEXT_TO_IMAGE, {"prompt": "a boat"})

    assert await running.status() == fal_client.InProgress(logs=None)
    assert await first.status() == fal_client.Queued(position=0)
    assert await second.status() == fal_client.Queued(position=1)


async def test_subscribes_by_the_application_and_the_request_id(client: fal_client.AsyncClient) -> None:
    handle = await client.submit(TEXT_TO_IMAGE, {"prompt": "a boat"})

    assert isinstance(await client.status(TEXT_TO_IMAGE, handle.request_id), fal_client.Completed)
    assert (await client.result(TEXT_TO_IMAGE, handle.request_id))["images"]
    assert (await client.subscribe(TEXT_TO_IMAGE, {"prompt": "a boat"}))["images"]


async def test_cancels_a_run_and_then_gets_499(client: fal_client.AsyncClient) -> None:
    handle = await client.submit(TEXT_TO_IMAGE, {"prompt": "[slow:60]"})

    await handle.cancel()

    status = await handle.status()
    assert isinstance(status, fal_client.Completed)
    assert status.error_type == "client_cancelled"
    with pytest.raises(fal_client.FalClientHTTPError) as failure:
        await handle.get()
    assert (failure.value.status_code, failure.value.error_type) == (499, "client_cancelled")
    with pytest.raises(fal_client.FalClientHTTPError) as failure:
        await handle.cancel()
    assert failure.value.status_code == 400


async def test_gets_the_details_of_a_model_error(client: fal_client.AsyncClient) -> None:
    handle = await client.submit("fal-ai/wan-25-preview/text-to-video", {"prompt": "a boat", "duration": 5})

    with pytest.raises(fal_client.FalClientHTTPError) as failure:
        await handle.get()

    assert failure.value.status_code == 422
    assert failure.value.response.json()["detail"][0]["loc"] == ["body", "duration"]
    assert failure.value.response_headers["x-fal-billable-units"] == "0"


async def test_uploads_a_picture_and_derives_another_from_it(client: fal_client.AsyncClient) -> None:
    url = await client.upload_image(Image.new("RGB", (64, 48), "red"), format="png")
    result = await client.subscribe(
        "fal-ai/wan-25-preview/image-to-image", {"prompt": "make it blue", "image_urls": [url]}
    )

    uploaded, derived = await download(client, url), await download(client, result["images"][0]["url"])
    assert uploaded.headers["content-type"] == "image/png"
    assert Image.open(io.BytesIO(uploaded.content)).size == (64, 48)
    assert Image.open(io.BytesIO(derived.content)).size == (512, 512)


@pytest.mark.parametrize("repository", ["fal_v3", "fal"])
async def test_uploads_to_both_repositories(
    client: fal_client.AsyncClient, repository: fal_client.client.UploadRepositoryId
) -> None:
    url = await client.upload(b"hello", "text/plain", "../a b.txt", repository=repository, fallback_repository=[])

    stored = await download(client, url)
    assert (stored.content, stored.headers["content-type"]) == (b"hello", "text/plain; charset=utf-8")
    assert url.endswith("/a_b.txt")


@pytest.mark.parametrize("from_disk", [False, True])
async def test_uploads_in_parts(
    client: fal_client.AsyncClient,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    from_disk: bool,
) -> None:
    monkeypatch.setattr(fal_client.client, "MULTIPART_THRESHOLD", 1_000)
    monkeypatch.setattr(fal_client.client, "MULTIPART_CHUNK_SIZE", 1_000)
    content = bytes(range(256)) * 45
    path = tmp_path / "film.mp4"
    path.write_bytes(content)

    if from_disk:
        url = await client.upload_file(path)
    else:
        url = await client.upload(content, "video/mp4", "film.mp4")

    stored = await download(client, url)
    assert stored.content == content
    assert stored.headers["content-type"] == "video/mp4"


def test_serves_the_synchronous_client(fal_simulator: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fal_client.client, "QUEUE_URL_FORMAT", f"{fal_simulator}/")
    client = fal_client.SyncClient(key="id:secret")

    result = client.subscribe("fal-ai/wan-25-preview/text-to-video", {"prompt": "a boat", "seed": 5})

    assert result["seed"] == 5
    client._client.close()
