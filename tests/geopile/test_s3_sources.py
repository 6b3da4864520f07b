"""Sources in a bucket, over a real S3 client and a server on this machine that checks keys, signatures and rights."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import rasterio
import simplejpeg
from rasterio.transform import from_origin

from gfm.errors import DataError
from gfm.geopile import assemble as assembly
from gfm.geopile.assemble import assemble
from gfm.imagery import store
from gfm.layout import COLLECTION
from gfm.params import Params

ADDRESS = "s3://imagery/geo"
LISTED = "geopile.sources.photos.store: s3://imagery/geo/photos: cannot be listed: PermissionError: "
RIGHTS = "look at the credentials in the environment, and at what they may list"
SECRET = Path("photos/port/secret.jpg")
KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")

Draw = Callable[[int], Any]


@dataclass
class Server:
    url: str
    s3: Any  # a client with every right
    reader: dict[str, str]  # the environment of who may read all but SECRET
    stranger: dict[str, str]  # of who may do nothing


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    lacking = [name for name in ("moto", "flask_cors", "s3fs") if importlib.util.find_spec(name) is None]
    if lacking:
        pytest.skip(f"no {', '.join(lacking)}: pip install -c constraints.txt -e '.[s3-server]'")
    import boto3
    import requests
    from moto.server import ThreadedMotoServer

    running = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    url = f"http://{host}:{port}"

    def client(service: str, key: dict[str, str]) -> Any:
        own = {"aws_access_key_id": key[KEYS[0]], "aws_secret_access_key": key[KEYS[1]]}
        return boto3.client(service, endpoint_url=url, region_name="us-east-1", **own)

    iam = client("iam", dict.fromkeys(KEYS, "any"))

    def user(name: str, *statements: dict[str, Any]) -> dict[str, str]:
        iam.create_user(UserName=name)
        policy = json.dumps({"Version": "2012-10-17", "Statement": list(statements)})
        if statements:
            iam.put_user_policy(UserName=name, PolicyName="own", PolicyDocument=policy)
        key = iam.create_access_key(UserName=name)["AccessKey"]
        return dict(zip(KEYS, (key["AccessKeyId"], key["SecretAccessKey"]), strict=True))

    everything = {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}
    reading = {"Effect": "Allow", "Action": ["s3:Get*", "s3:List*"], "Resource": "*"}
    but_one = {"Effect": "Deny", "Action": "s3:GetObject", "Resource": f"arn:aws:s3:::imagery/geo/{SECRET}"}
    owner, reader, stranger = user("owner", everything), user("reader", reading, but_one), user("stranger")
    requests.post(f"{url}/moto-api/reset-auth", data="0", timeout=10)  # from now on it asks for keys and rights
    yield Server(url, client("s3", owner), reader, stranger)
    running.stop()


@pytest.fixture
def bucket(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, picture: Draw) -> Iterator[Server]:
    """Photos and a scene in the bucket and in a folder beside; the environment is the reader's."""
    import s3fs

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(store, "WAITS_S", (0.0,))
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    nothing = {"AWS_CONFIG_FILE": "none", "AWS_SHARED_CREDENTIALS_FILE": "none", "AWS_EC2_METADATA_DISABLED": "true"}
    plain = {
        "AWS_ENDPOINT_URL": server.url,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_MAX_ATTEMPTS": "1",
        "NO_PROXY": "*",
    }
    for name, value in (nothing | plain | server.reader).items():
        monkeypatch.setenv(name, value)
    for number in range(4):
        save(Path(f"elsewhere/photos/{('port', 'sea')[number % 2]}/{number}.jpg"), encoded(picture(number)))
    save(Path("elsewhere/scenes/coast_20210304.tif"), geotiff(picture(9)))
    server.s3.create_bucket(Bucket="imagery")
    for path in Path("elsewhere").rglob("*.*"):
        put(server, path.relative_to("elsewhere"), path.read_bytes())
    s3fs.S3FileSystem.clear_instance_cache()
    yield server
    for item in server.s3.list_objects_v2(Bucket="imagery").get("Contents", []):
        server.s3.delete_object(Bucket="imagery", Key=item["Key"])
    server.s3.delete_bucket(Bucket="imagery")


def save(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def put(server: Server, path: Path, data: bytes) -> None:
    server.s3.put_object(Bucket="imagery", Key=f"geo/{path.as_posix()}", Body=data)


def delete(server: Server, name: str) -> None:
    server.s3.delete_object(Bucket="imagery", Key=f"geo/{name}")


def encoded(image: Any) -> bytes:
    return bytes(simplejpeg.encode_jpeg(image))


def geotiff(tile: Any) -> bytes:
    """Two by two different tiles of 96 px."""
    image = np.block([[[tile], [tile[::-1]]], [[tile[:, ::-1]], [np.rot90(tile)]]]).reshape(2 * 96, 2 * 96, 3)
    profile = {"driver": "GTiff", "width": 192, "height": 192, "count": 3, "dtype": "uint8", "crs": "EPSG:32633"}
    with rasterio.MemoryFile() as memory:
        with memory.open(**profile, transform=from_origin(5e5, 55e5, 10, 10)) as file:
            file.write(np.moveaxis(image, -1, 0))
        return bytes(memory.read())


def parameters(address: str | None = ADDRESS, workers: int = 1) -> Params:
    sources = {"photos": "class-folders", "scenes": "scenes"}
    declared = {name: {"format": kind, "root": name, "licence": "CC0"} for name, kind in sources.items()}
    data = {"format": "class-folders", "root": "t", "split": {"val_share": 0.2, "test_share": 0.2}}
    return Params.model_validate(
        {
            "paths": {"raw": "elsewhere" if address is None else "raw"},
            "geopile": {
                "tile_px": 96,
                "workers": workers,
                "sources": {name: one | {"store": address} for name, one in declared.items()},
            },
            "teacher": {"kind": "timm", "architecture": {}, "weights": "hub", "licence": "none"},
            "pretrain": {"gfm": {"recipe": "gfm"}},
            "tasks": {"t": {"kind": "classification", "data": data}},
        }
    )


def outputs() -> tuple[pd.DataFrame, str, bytes]:
    shards = b"".join(path.read_bytes() for path in sorted((COLLECTION / "shards").iterdir()))
    manifest = pd.read_parquet(COLLECTION / "manifest.parquet")
    return manifest, (COLLECTION / "quarantine.csv").read_text(), shards


@pytest.mark.parametrize("workers", [1, 2])
def test_a_bucket_gives_the_bytes_that_the_same_files_on_disk_give(bucket: Server, workers: int) -> None:
    assemble(parameters(None))
    manifest, quarantine, shards = outputs()
    assemble(parameters(workers=workers))
    again = outputs()
    pd.testing.assert_frame_equal(again[0], manifest)
    assert again[1:] == (quarantine, shards)
    assert manifest["source"].value_counts().to_dict() == {"photos": 4, "scenes": 4}


@pytest.mark.parametrize(
    ("who", "said"),
    [
        ({KEYS[1]: "wrong"}, f"{LISTED}The request signature we calculated does not match .*; {RIGHTS}"),
        ({KEYS[0]: "AKIAUNKNOWN"}, f"{LISTED}The AWS Access Key Id you provided does not exist .*; {RIGHTS}"),
        ({}, f"{LISTED}Access Denied; {RIGHTS}"),
        (None, "NoCredentialsError: Unable to locate credentials; look at the credentials in the environment"),
    ],
    ids=["a wrong secret", "an unknown key", "no right to list", "no key"],
)
def test_credentials_that_do_not_do_are_one_error(
    bucket: Server, monkeypatch: pytest.MonkeyPatch, who: dict[str, str] | None, said: str
) -> None:
    for name in KEYS:
        monkeypatch.delenv(name)
    for name, value in ({} if who is None else bucket.stranger | who).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(DataError, match=said):
        assemble(parameters())


def test_a_missing_bucket_and_an_empty_folder_of_one_are_told_apart(bucket: Server) -> None:
    with pytest.raises(
        DataError, match=r"sources\.photos\.store: s3://other/geo/photos: .* bucket does not exist; correct the address"
    ):
        assemble(parameters("s3://other/geo"))
    with pytest.raises(DataError, match=r"s3://imagery/none/photos holds no file .*; correct geopile\.sources\.photos"):
        assemble(parameters("s3://imagery/none"))


def test_an_object_that_may_not_be_read_or_went_meanwhile_is_quarantined_and_the_rest_is_collected(
    bucket: Server, monkeypatch: pytest.MonkeyPatch, picture: Draw
) -> None:
    put(bucket, SECRET, encoded(picture(7)))
    opened = store.Store.open

    def meanwhile(self: store.Store, file: str) -> Any:
        for name in ("photos/sea/1.jpg", "scenes/coast_20210304.tif"):
            if name.endswith(file):
                delete(bucket, name)
        return opened(self, file)

    monkeypatch.setattr(store.Store, "open", meanwhile)
    assemble(parameters())
    manifest, quarantine, _ = outputs()
    assert manifest["id"].tolist() == ["photos/port/0.jpg", "photos/port/2.jpg", "photos/sea/3.jpg"]
    assert quarantine.splitlines()[1:] == [
        "photos,photos/port/secret.jpg,not readable: permission denied",
        "photos,photos/sea/1.jpg,no such file",
        "scenes,scenes/coast_20210304.tif,no such file",
    ]


def test_an_object_that_went_after_it_was_judged_says_to_run_again_which_does(
    bucket: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = assembly.write_shards

    def after(*arguments: Any, **more: Any) -> Any:
        delete(bucket, "photos/sea/1.jpg")
        return write(*arguments, **more)

    with monkeypatch.context() as patch:
        patch.setattr(assembly, "write_shards", after)
        with pytest.raises(DataError, match=r"photos/sea/1\.jpg: no such file, after it had been read once; run `gfm"):
            assemble(parameters())
    assemble(parameters())
    assert outputs()[0]["source"].value_counts().to_dict() == {"scenes": 4, "photos": 3}


def test_a_server_that_is_gone_is_one_error_with_the_address(bucket: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(
        DataError, match=r"s3://imagery/geo/photos: not reachable after 2 attempts: .*; look at the net"
    ):
        assemble(parameters())
