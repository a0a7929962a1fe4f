"""How a server of asyncio's own ends with its loop, leaving no socket behind: what is left is a later test's warning.

`Server.close` ends the listening alone (Python 3.13 adds `close_clients`), and a connection goes through three stages
that a closed loop leaves as they are: taken from the kernel without a transport, shaking hands, flushing to a client
that does not read.
"""

import asyncio
from collections.abc import Collection

_TURNS = 3
"""Of the loop, with one to spare: from a taken socket to `connection_made`, and from an abort to a closed socket."""


async def stop_listening(*servers: asyncio.Server) -> None:
    """Close the servers once every socket that they have taken has its transport: a closed one refuses to make any."""
    loop = asyncio.get_running_loop()
    for server in servers:
        for listening in server.sockets:
            loop.remove_reader(listening.fileno())
    await _turns()
    for server in servers:
        server.close()


async def cut(tasks: Collection[asyncio.Task[None]], connections: Collection[asyncio.StreamWriter]) -> None:
    """Cancel what handles the connections, then abort them.

    Args:
        tasks: those of the handlers and, where it is known, of handshakes.
        connections: live, a `WeakSet` say, of those that `client_connected_cb` was given.

    """
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for connection in list(connections):
        connection.transport.abort()
    await _turns()


async def end(servers: Collection[asyncio.Server], connections: Collection[asyncio.StreamWriter]) -> None:
    """All of it, on a loop that has nothing else to do: every task of the loop but the caller's is cancelled."""
    await stop_listening(*servers)
    await cut(asyncio.all_tasks() - {asyncio.current_task()}, connections)


async def _turns() -> None:
    for _ in range(_TURNS):
        await asyncio.sleep(0)
