"""Collections of true data to try the system with: telemetry of this machine, as psutil reads it.

Numbers only. No host name, no user name, no path, no address: what is stored here may be shown to anyone.
"""

import time
from typing import Any

import psutil


def collections() -> list[dict[str, Any]]:
    """A few bodies for `POST /v1/collections`: load and memory, disks, network."""
    return [_body(_load() + _memory()), _body(_disks()), _body(_network())]


def _body(payloads: list[dict[str, Any]]) -> dict[str, Any]:
    return {"version": "1", "token": "make-run", "data": [{**one, "unix_s": round(time.time(), 3)} for one in payloads]}


def _load() -> list[dict[str, Any]]:
    one, five, fifteen = psutil.getloadavg()
    times = psutil.cpu_times()
    return [
        {"kind": "load", "cpus": psutil.cpu_count(), "1m": one, "5m": five, "15m": fifteen},
        {"kind": "cpu_seconds", "user": times.user, "system": times.system, "idle": times.idle},
    ]


def _memory() -> list[dict[str, Any]]:
    memory, swap = psutil.virtual_memory(), psutil.swap_memory()
    return [
        {"kind": "memory", "total_bytes": memory.total, "available_bytes": memory.available, "percent": memory.percent},
        {"kind": "swap", "total_bytes": swap.total, "used_bytes": swap.used},
    ]


def _disks() -> list[dict[str, Any]]:
    root = psutil.disk_usage("/")
    payloads: list[dict[str, Any]] = [{"kind": "disk", "total_bytes": root.total, "used_bytes": root.used}]
    counters = psutil.disk_io_counters()
    if counters is not None:  # a container may show none
        payloads.append({"kind": "disk_io", "read_bytes": counters.read_bytes, "written_bytes": counters.write_bytes})
    return payloads


def _network() -> list[dict[str, Any]]:
    counters = psutil.net_io_counters()
    return [
        {"kind": "network", "sent_bytes": counters.bytes_sent, "received_bytes": counters.bytes_recv},
        {"kind": "network_errors", "in": counters.errin, "out": counters.errout, "dropped_in": counters.dropin},
    ]
