"""A proxy on loopback that delays what it passes on, as a network would: each way by half of a round trip.

    python benchmarks/delaying_proxy.py PORT [--round-trip-ms 1.0]

It prints the port on which it listens, and ends when its stdin ends.
"""

import argparse
import socket
import sys
import threading
import time


def passed_on(of: socket.socket, to: socket.socket, delay_s: float) -> None:
    """Pass on what one end sends until it closes."""
    try:
        while data := of.recv(1 << 20):
            time.sleep(delay_s)
            to.sendall(data)
    except OSError:
        pass
    for end in (of, to):
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


def accept(listening: socket.socket, port: int, delay_s: float) -> None:
    """Join each connection with one of its own to the port."""
    while True:
        client, _ = listening.accept()
        server = socket.create_connection(("127.0.0.1", port))
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for pair in ((client, server), (server, client)):
            threading.Thread(target=passed_on, args=(*pair, delay_s), daemon=True).start()


def main() -> None:
    """Listen until stdin ends."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("port", type=int)
    parser.add_argument("--round-trip-ms", type=float, default=1.0)
    arguments = parser.parse_args()
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listening:
        delay_s = arguments.round_trip_ms / 2000
        threading.Thread(target=accept, args=(listening, arguments.port, delay_s), daemon=True).start()
        print(listening.getsockname()[1], flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
