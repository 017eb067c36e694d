"""`agentspan serve`: checks the address and the token, and runs the server until a signal ends it."""

import gc
import ipaddress
import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import click

from agentspan import clock
from agentspan.analysis.filter_words import parse_time
from agentspan.cli.app import command, db_option, location_in
from agentspan.cli.output import Failed, safe, to_copy
from agentspan.host import Thread
from agentspan.installing import needs_extra
from agentspan.recording.capture.redaction import card_numbers
from agentspan.serve.running import HEADER, new_number, noted
from agentspan.storage.location import Location

if TYPE_CHECKING:
    import uvicorn
    from starlette.types import ASGIApp, Receive, Scope, Send

    from agentspan.cli.watch import WatchThread

END_S = 2
"""The seconds that running requests get to finish after a signal to end the server."""
LAST_S = 2.5
"""The seconds after a signal within which the process ends in any case."""
LONGEST_TOKEN = 4096
LOOK_S = 1.0
"""The least seconds between two looks at whether a server is idle."""


@command("serve")
@click.option("--host", default="127.0.0.1", show_default=True, help="Listen on this address.")
@click.option("--port", default=8484, show_default=True, help="Listen on this port; 0 is any that is free.")
@click.option("--token-file", metavar="PATH", help="Read the token of clients from here, else AGENTSPAN_TOKEN.")
@click.option("--create", is_flag=True, help="Make the file, if it does not exist.")
@click.option("--read-only", is_flag=True, help="Refuse every write.")
@click.option("--strict-schemas", is_flag=True, help="Refuse payloads that do not match their schema.")
@click.option(
    "--redact",
    type=click.Choice(["credentials", "cards", "off"]),
    default="credentials",
    show_default=True,
    help="Replace what looks like this before it is stored.",
)
@click.option(
    "--sensitive",
    type=click.Choice(["redact", "keep"]),
    default="redact",
    show_default=True,
    help="Store values that are marked as $sensitive, or not.",
)
@click.option("--allowed-host", "allowed_hosts", metavar="NAME", multiple=True, help="Accept this Host, too.")
@click.option("--cors-origin", "cors_origins", metavar="URL", multiple=True, help="Let pages of URL call.")
@click.option("--max-body", metavar="BYTES", default=10 * 2**20, show_default=True, help="Refuse larger requests.")
@click.option(
    "--watch",
    "watched",
    metavar="[SOURCE]",
    is_flag=False,
    flag_value="",
    multiple=True,
    help="Follow sessions of coding agents, too, as watch does.",
)
@click.option("--yes", is_flag=True, help="With --watch: begin without asking.")
@click.option("--idle", metavar="TIME", help="End after so long without a request: 30m, 2h …")
@click.option("--in-background", is_flag=True, hidden=True)
@db_option
@click.pass_context
def serve_command(
    ctx: click.Context,
    /,
    db: str | None,
    *,
    host: str,
    port: int,
    token_file: str | None,
    read_only: bool,
    strict_schemas: bool,
    redact: str,
    sensitive: str,
    allowed_hosts: tuple[str, ...],
    cors_origins: tuple[str, ...],
    max_body: int,
    create: bool,
    watched: tuple[str, ...],
    yes: bool,
    idle: str | None,
    in_background: bool,
) -> None:
    """Serve the viewer and the operations over HTTP.

    The official clients of the Prefactor API work against it.
    """
    location = location_in(ctx, db)
    token = _token(token_file)
    if token is None and not _is_loopback(host):
        raise Failed(
            f"{host} can be reached from other machines, so a token is needed: AGENTSPAN_TOKEN, or --token-file"
        )
    try:
        import uvicorn

        from agentspan.serve.app import LOOPBACK, create_app
        from agentspan.serve.connections import limited, limits_of_process, listening
        from agentspan.serve.logins import check
    except ImportError:
        raise Failed(needs_extra("serving", "serve")) from None
    if token is not None:
        check(token)
    if read_only and watched:
        raise click.UsageError("--watch writes, and --read-only writes nothing")
    watching = _watching(ctx, db, location, watched, redact, yes=yes) if watched else None
    if location.path is not None and not create and watching is None and not location.path.exists():
        raise Failed(f"{location.path} does not exist; --create makes an empty file")
    # Check the Host header: a web page in a local browser could reach the server under its own name (DNS rebinding).
    has_hosts = token is None or bool(allowed_hosts) or _is_loopback(host)
    hosts = {*LOOPBACK, host, *allowed_hosts} if has_hosts else None
    app = create_app(
        location,
        token=token,
        read_only=read_only,
        strict_schemas=strict_schemas,
        redact=None if redact == "off" else card_numbers if redact == "cards" else "credentials",
        sensitive="keep" if sensitive == "keep" else "redact",
        allowed_hosts=hosts,
        cors_origins=cors_origins,
        max_body=max_body,
    )
    limits = limits_of_process()
    requests = Requests(app)
    number = new_number()
    config = uvicorn.Config(
        requests,
        headers=[(HEADER, number)],
        host=host,
        port=port,
        http=limited(limits),
        ws="none",  # no upgrade to WebSocket: it would bypass our protocol's limits
        backlog=limits.backlog,
        timeout_keep_alive=limits.idle_s,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=END_S,
        server_header=False,
        proxy_headers=True,  # wrong tokens count for the client's address, which a proxy on this machine names
    )
    server = uvicorn.Server(config)
    idle_s = None if idle is None else _seconds(idle)
    # uvicorn raises the signal again after its end, which would kill the process without these handlers. A signal that
    # arrives before uvicorn has installed its own handlers must end the server, too.
    end_soon, handle_exit = _end_soon(), server.handle_exit

    def end(number: int, frame: FrameType | None) -> None:
        end_soon()
        server.should_exit = True

    def end_served(number: int, frame: FrameType | None) -> None:
        end_soon()
        handle_exit(number, frame)

    server.handle_exit = end_served  # type: ignore[method-assign,assignment]
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, end)
    try:
        socket = listening(host, port, config.backlog)
    except OSError as error:
        raise Failed(str(error.strerror)) from None
    name = f"[{host}]" if ":" in host else host
    guarded = f"open it in a browser to read runs; {'a' if token else 'no'} token is required"
    address = f"http://{name}:{socket.getsockname()[1]}"
    # Objects that exist now live until the end. Frozen, they save 24 full collections in 10 s of load, 40 to 90 ms
    # each. Requests leave few reference cycles: collecting after every 700 objects took 6 % of the time.
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 10, 10)
    if watching is not None:
        watching.start()
    if idle_s is not None:
        Thread(target=_end_when_idle, args=(server, requests, idle_s), name="agentspan-idle", daemon=True).start()
    with noted(location, _local(address), number=number, in_background=in_background):
        click.echo(f"agentspan serves {safe(str(location))} on {address} ({guarded}); Ctrl-C ends it")
        server.run(sockets=[socket])
    if watching is not None:
        watching.stop()


def _watching(
    ctx: click.Context, db: str | None, location: Location, watched: Sequence[str], redact: str, *, yes: bool
) -> "WatchThread":
    """Return the thread that follows sessions, not started; without a named format, ask a person first."""
    from agentspan.cli.watch import WatchThread, ask
    from agentspan.recording.capture.plain import SentRedaction
    from agentspan.sessions.machine import Choice, places
    from agentspan.sessions.registry import formats

    names, known = [name for name in watched if name], formats()
    found = places(names, known, os.environ)
    ask(ctx, db, names, known, found, Choice(), yes=yes, what=to_copy("serve", "--watch", "all"))
    redacts = None if redact == "off" else SentRedaction(card_numbers if redact == "cards" else None)
    return WatchThread(location, names, redacts)


class Requests:
    """An ASGI middleware that notes when the last request began or ended, and how many are under way.

    Attributes:
        under_way: the number of requests without a whole answer.
        last_s: the time of the last request, by `time.monotonic`; of the start, before the first one.
    """

    def __init__(self, app: "ASGIApp") -> None:
        self._app = app
        self.under_way = 0
        self.last_s = time.monotonic()

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Pass a request on, and count it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        self.under_way += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self.under_way -= 1
            self.last_s = time.monotonic()


def _end_when_idle(server: "uvicorn.Server", requests: Requests, idle_s: float) -> None:
    while not server.should_exit:
        left_s = requests.last_s + idle_s - time.monotonic()
        if left_s <= 0 and not requests.under_way:
            server.should_exit = True
        time.sleep(min(max(left_s, LOOK_S), idle_s))


def _seconds(text: str) -> float:
    """Return the seconds of a duration that a person typed, such as `30m`."""
    now = clock.now()
    return max(clock.millis_between(parse_time(text, "idle"), now) / 1000, LOOK_S)


def _local(address: str) -> str:
    """Return the address for a browser on this machine of a server that listens on all addresses."""
    return address.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")


def _end_soon() -> Callable[[], object]:
    """Return a function for signal handlers that ends the process LAST_S seconds later, whatever its threads do.

    A thread that handles a request cannot be stopped, and the interpreter waits for it at exit. An interrupted request
    is rolled back as after a crash, and its client retries it. The function writes to a pipe, because a signal handler
    may interrupt any code: a lock could deadlock.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)

    def wait() -> None:
        os.read(reading, 1)
        time.sleep(LAST_S)
        os.write(2, b"agentspan ended while it worked at requests\n")
        os._exit(0)

    Thread(target=wait, name="agentspan-end", daemon=True).start()
    return lambda: os.write(writing, b"x")


def _token(token_file: str | None) -> str | None:
    """Return the token from a file or AGENTSPAN_TOKEN; never from the command line, which all users can read."""
    if token_file is None:
        token = os.environ.get("AGENTSPAN_TOKEN", "")
        return _checked(token, "AGENTSPAN_TOKEN") if token else None
    try:
        token = Path(token_file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Failed(f"the token file {token_file} cannot be read: {getattr(error, 'strerror', 'no text')}") from None
    return _checked(token, token_file)


def _checked(token: str, where: str) -> str:
    """Return a token if a client can send it in a header, else raise Failed.

    Args:
        where: the source of the token, for the error.
    """
    if not token or len(token) > LONGEST_TOKEN or any(character.isspace() for character in token):
        raise Failed(f"{where} must hold one token: a line without blanks")
    return token


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
