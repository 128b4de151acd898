"""The doctor's facts of a Prefect server: what it says of itself, asked over its API.

No client of Prefect's is loaded: a doctor that waits for one, or fails with one, is no help.
"""

import base64
import json
import os
import re
import socket
import urllib.error
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from importlib.metadata import PackageNotFoundError, version
from typing import Any
from urllib.parse import urlsplit

from alpacafarm_core.checkup import Pool, Server

PATIENCE = 10.0
LOOPBACK = ("127.0.0.1", "localhost", "::1")
Call = Callable[..., Any]


def server(api: str) -> Server:
    """The server at an API's URL, with the password of PREFECT_API_AUTH_STRING if there is one."""
    shown = re.sub("^(https?://)?.*@", r"\1", api)  # what stands before an @ may be a password
    nothing = Server(url=shown, ours=_ours())
    call = _caller(shown.rstrip("/"), os.environ.get("PREFECT_API_AUTH_STRING", ""))
    try:
        nothing = nothing.replace(local=urlsplit(shown).hostname in LOOPBACK)
        return nothing.replace(**_told(call), secured=_wants_password(shown))
    except urllib.error.HTTPError as error:
        return nothing.replace(error=f"HTTP {error.code}")
    except (OSError, ValueError, TypeError, KeyError, HTTPException) as error:
        reason = getattr(error, "reason", None)
        return nothing.replace(error=f"no answer ({_kind(reason or error)})")


def _told(call: Call) -> dict[str, Any]:
    settings = call("admin/settings")["server"]
    pools = call("work_pools/filter", {})
    return {
        "version": call("admin/version"),
        "database": _database(settings["database"]),
        "leases": settings["concurrency"]["lease_storage"],
        "deployments": call("deployments/count", {}),
        "pools": tuple(_pool(call, each) for each in pools),
        "automations": tuple(e["name"] for e in call("automations/filter", {}) if e["enabled"]),
        "limits": tuple(e["name"] for e in call("v2/concurrency_limits/filter", {})),
    }


def _pool(call: Call, said: dict[str, Any]) -> Pool:
    workers = call(f"work_pools/{said['name']}/workers/filter", {})
    online = sum(each.get("status") == "ONLINE" for each in workers)
    return Pool(name=said["name"], kind=said["type"], workers=online)


def _database(said: dict[str, Any]) -> str:
    """The kind of its database: a server says so only in parts, and the environment of its own."""
    url = os.environ.get("PREFECT_API_DATABASE_CONNECTION_URL", "")
    driver = str(said.get("driver") or url.partition(":")[0])
    return driver.partition("+")[0]


def _caller(api: str, secret: str) -> Call:
    def call(path: str, body: dict[str, Any] | None = None) -> Any:
        request = urllib.request.Request(
            f"{api}/{path}",
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        if secret:
            word = base64.b64encode(secret.encode()).decode()
            request.add_header("Authorization", f"Basic {word}")
        with urllib.request.urlopen(request, timeout=PATIENCE) as reply:
            return json.load(reply)

    return call


def _wants_password(api: str) -> bool:
    try:
        _caller(api.rstrip("/"), "")("admin/version")
    except urllib.error.HTTPError as error:
        return error.code == 401
    return False


def _ours() -> str:
    try:
        return version("prefect")
    except PackageNotFoundError:
        return ""


def _kind(reason: object) -> str:
    if isinstance(reason, TimeoutError | socket.timeout):
        return "in time"
    return getattr(reason, "strerror", None) or type(reason).__name__
