"""An application in this process, asked like a server: httpx over ASGI, on an event loop of its own."""

import asyncio
from typing import Any, Self

import httpx


class Client:
    """A synchronous client of an ASGI application; requests share one event loop, as they do in a server."""

    def __init__(self, app: Any, base_url: str = "http://localhost", *, follow_redirects: bool = False) -> None:
        transport = httpx.ASGITransport(app)
        self._client = httpx.AsyncClient(transport=transport, base_url=base_url, follow_redirects=follow_redirects)
        self._runner = asyncio.Runner()
        self.cookies = self._client.cookies

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Send a request; return the whole response."""
        return self._runner.run(self._client.request(method, path, **options))

    def get(self, path: str, **options: Any) -> httpx.Response:
        """GET."""
        return self.request("GET", path, **options)

    def post(self, path: str, **options: Any) -> httpx.Response:
        """POST."""
        return self.request("POST", path, **options)

    def raw(self, path: str, **options: Any) -> tuple[httpx.Response, bytes]:
        """GET, and return the body as it came."""

        async def read() -> tuple[httpx.Response, bytes]:
            async with self._client.stream("GET", path, **options) as response:
                return response, b"".join([part async for part in response.aiter_raw()])

        return self._runner.run(read())

    def close(self) -> None:
        """Close the client and its loop; closing twice is fine."""
        if not self._client.is_closed:
            self._runner.run(self._client.aclose())
            self._runner.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
