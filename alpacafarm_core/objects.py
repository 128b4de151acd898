"""The seam to S3-compatible storage: objects with names, laid whole or not at all.

Where it is comes from an address `s3://BUCKET/PREFIX` and AWS_ENDPOINT_URL, who asks from AWS's
usual variables and files; neither is kept or shown here.
"""

import re
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from email.utils import parsedate_to_datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

from alpacafarm_core.errors import BadInput, FarmError, Missing, StoreNotWritable, Unreachable

ADDRESS = re.compile(r"s3://(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?P<prefix>(/[\w.=-]+)*)/?")
ABSENT = {"404", "NoSuchKey", "NotFound"}
TAKEN = {"412", "PreconditionFailed", "409", "ConditionalRequestConflict"}
REFUSED = {"401", "403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch"}
WITHOUT_CONDITIONS = {"501", "NotImplemented"}
UNCONDITIONAL = (
    "this storage knows no conditional writes (If-None-Match), without which two machines could "
    "take the same work; use one that does"
)
TRIES = 5
T = TypeVar("T")


class Held(NamedTuple):
    """An object: its bytes, when it was laid, and a tag that tells its versions apart."""

    name: str
    size: int
    laid: datetime
    tag: str


class Listing(NamedTuple):
    """Objects in the order of their names, and the time by the storage's own clock."""

    held: list[Held]
    now: datetime


class Objects(Protocol):
    """What a store asks of storage; every method may raise Unreachable or BadInput."""

    def read(self, name: str) -> tuple[bytes, str] | None:
        """Content and tag; None where there is no such object."""

    def fetch(self, name: str, file: Path) -> bool:
        """Copy an object into a file; false where there is none."""

    def lay(self, name: str, content: bytes | Path) -> None:
        """Lay an object, in place of one of that name."""

    def lay_new(self, name: str, content: bytes) -> bool:
        """Lay an object unless there is one of that name with other content."""

    def drop(self, name: str) -> None:
        """Take an object away; nothing where there is none."""

    def listing(self, prefix: str) -> Listing:
        """Every object whose name begins so."""


class S3Objects:
    """Objects below a prefix of a bucket; safe under threads."""

    def __init__(self, address: str) -> None:
        """Raises BadInput for what is no address, or without the package that it takes."""
        self.bucket, self._base = parted(address)
        self.address = f"s3://{self.bucket}/{self._base}".rstrip("/")
        if find_spec("boto3") is None:
            raise BadInput(
                "a store on S3 takes boto3, which is not installed; `pip install 'alpacafarm[s3]'`"
            )
        self._client = _client()

    def read(self, name: str) -> tuple[bytes, str] | None:
        """As Objects says."""

        def reading() -> tuple[bytes, str]:
            found = self._client.get_object(**self._at(name))
            return found["Body"].read(), str(found["ETag"])

        try:
            return self._answer(reading)
        except _Absent:
            return None

    def fetch(self, name: str, file: Path) -> bool:
        """As Objects says."""
        where = (self.bucket, self._base + name, str(file))
        try:
            self._answer(lambda: self._client.download_file(*where))
        except _Absent:
            return False
        return True

    def lay(self, name: str, content: bytes | Path) -> None:
        """As Objects says; a large file goes in parts and is there with the last of them."""
        where = (self.bucket, self._base + name)
        if isinstance(content, Path):
            self._answer(lambda: self._client.upload_file(str(content), *where))
        else:
            self._answer(lambda: self._client.put_object(**self._at(name), Body=content))

    def lay_new(self, name: str, content: bytes) -> bool:
        """As Objects says; raises BadInput where the storage cannot tell."""
        laying = {**self._at(name), "Body": content, "IfNoneMatch": "*"}
        while True:
            try:
                self._answer(lambda: self._client.put_object(**laying))
                return True
            except _Taken:
                # A try whose answer was lost is told the second time that the object is there.
                there = self.read(name)
            if there is not None:
                return there[0] == content
            # Two tries at the same time may both be refused.
            time.sleep(0.1)

    def drop(self, name: str) -> None:
        """As Objects says."""
        with suppress(_Absent):
            self._answer(lambda: self._client.delete_object(**self._at(name)))

    def listing(self, prefix: str) -> Listing:
        """As Objects says."""

        def listing() -> Listing:
            asked = self._client.get_paginator("list_objects_v2")
            pages = list(asked.paginate(Bucket=self.bucket, Prefix=self._base + prefix))
            held = [self._held(each) for page in pages for each in page.get("Contents", ())]
            headers = pages[0]["ResponseMetadata"]["HTTPHeaders"]
            return Listing(held, parsedate_to_datetime(headers["date"]))

        return self._answer(listing)

    def _at(self, name: str) -> dict[str, Any]:
        return {"Bucket": self.bucket, "Key": self._base + name}

    def _held(self, said: dict[str, Any]) -> Held:
        name = str(said["Key"]).removeprefix(self._base)
        return Held(name, said["Size"], said["LastModified"], str(said["ETag"]))

    def _answer(self, request: Callable[[], T]) -> T:
        """What the storage answers; what it refuses and why it is silent as errors of ours."""
        from boto3.exceptions import S3UploadFailedError
        from botocore import exceptions

        try:
            return request()
        except exceptions.ClientError as error:
            refusal = self._refusal(str(error.response.get("Error", {}).get("Code", "")))
        except S3UploadFailedError as error:
            told = re.search(r"An error occurred \((\w+)\)", str(error))
            refusal = self._refusal(told[1] if told else "with a broken upload")
        except (exceptions.NoCredentialsError, exceptions.PartialCredentialsError):
            refusal = BadInput(
                f"{self.address}: no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            )
        except (exceptions.BotoCoreError, OSError, ValueError) as error:
            refusal = Unreachable(
                f"{self.address} does not answer ({type(error).__name__}); see that the storage "
                "runs and AWS_ENDPOINT_URL names it, then run again"
            )
        raise refusal from None

    def _refusal(self, code: str) -> FarmError:
        if code in ABSENT:
            return _Absent(code)
        if code in TAKEN:
            return _Taken(code)
        if code in WITHOUT_CONDITIONS:
            return BadInput(f"{self.address}: {UNCONDITIONAL}")
        if code == "NoSuchBucket":
            return Missing(f"no bucket {self.bucket}; make it, or mend ALPACAFARM_STORE")
        if code in REFUSED:
            return StoreNotWritable(
                f"{self.address} refuses these credentials ({code}); mend AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY, or the rights that they have"
            )
        return Unreachable(f"{self.address} answers {code}; run again when it is well")


class _Absent(FarmError):
    """No object of that name."""


class _Taken(FarmError):
    """There is an object of that name."""


def parted(address: str) -> tuple[str, str]:
    """Bucket and prefix (empty, or with a slash at its end) of an address; raises BadInput."""
    found = ADDRESS.fullmatch(address)
    if found is None:
        # What was given may hold a password, so it is not shown.
        raise BadInput(
            "the store's s3:// address is not s3://BUCKET/PREFIX (letters, digits, dots, dashes); "
            "credentials belong in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    prefix = found["prefix"].strip("/")
    return found["bucket"], f"{prefix}/" if prefix else ""


def _client() -> Any:
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    patience: dict[str, Any] = {"max_attempts": TRIES, "mode": "standard"}
    config = Config(connect_timeout=10, read_timeout=60, retries=patience)
    try:
        return boto3.session.Session().client("s3", config=config)
    except (ValueError, BotoCoreError) as error:
        raise BadInput(
            f"what the environment says of the storage cannot be used ({type(error).__name__}); "
            "AWS_ENDPOINT_URL is http(s)://HOST:PORT, AWS_PROFILE a profile that there is"
        ) from None


def probe(objects: Objects, name: str) -> None:
    """Raise BadInput unless the storage heeds conditions; `name` is one that nobody uses."""
    try:
        heeds = objects.lay_new(name, b"first") and not objects.lay_new(name, b"second")
    finally:
        objects.drop(name)
    if not heeds:
        raise BadInput(UNCONDITIONAL)
