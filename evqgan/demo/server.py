"""How the page is served: on loopback by default, and with nothing loaded from other hosts."""

import errno
import os
import pathlib
import socket
import threading
import warnings
from typing import Any

from evqgan.core.errors import InputError
from evqgan.demo import uploads
from evqgan.demo.studio import Studio

# Content-Security-Policy: the browser loads nothing from other hosts.
POLICY = (
    "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; connect-src 'self' data: blob:; frame-ancestors 'self'; "
    "form-action 'self'; base-uri 'self'"
)
QUIET = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1"}


class Policy:
    """Add POLICY to every answer, as ASGI middleware."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request."""

        async def with_policy(message: Any) -> None:
            if message["type"] == "http.response.start":
                headers = (b"content-security-policy", POLICY.encode())
                more = (b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer")
                message = {**message, "headers": [*message["headers"], headers, *more]}
            await send(message)

        await self.app(scope, receive, with_policy)


def bound_pictures() -> None:
    """Let Pillow refuse pictures above `uploads.PIXELS`, wherever Gradio opens one."""
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = uploads.PIXELS
    warnings.simplefilter("error", Image.DecompressionBombWarning)


def start(studio: Studio, host: str, port: int) -> tuple[Any, str]:
    """Start serving, and return the page and its address; InputError as of `port_at`."""
    port = port_at(host, port)
    os.environ.update(QUIET)
    os.environ["GRADIO_TEMP_DIR"] = str(pathlib.Path(studio.files.folder).parent / "uploads")
    bound_pictures()
    from starlette.middleware import Middleware

    from evqgan.demo import page, style

    built = page.build(studio)
    try:
        _, address, _ = built.launch(
            server_name=host,
            server_port=port,
            share=False,
            inbrowser=False,
            prevent_thread_lock=True,
            quiet=True,
            show_error=True,
            max_file_size=uploads.BYTES,
            allowed_paths=[str(studio.files.folder)],
            ssr_mode=False,
            enable_monitoring=False,
            pwa=False,
            mcp_server=False,
            footer_links=[],
            theme=style.theme(),
            css=style.CSS,
            app_kwargs={"middleware": [Middleware(Policy)], "docs_url": None, "redoc_url": None},
        )
    except OSError as error:
        raise refused(host, port, error) from error
    return built, address


def port_at(host: str, port: int) -> int:
    """Return `port`, or for 0 a free one, after a look whether this machine can listen there.

    It is looked before the model is loaded, and again when the page is served.

    Raises InputError for an address that is not of this machine, and a port in use.
    """
    try:
        kind, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(kind, socket.SOCK_STREAM) as found:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            found.bind(address)
            return int(found.getsockname()[1])
    except OSError as error:
        raise refused(host, port, error) from error


def refused(host: str, port: int, error: OSError) -> InputError:
    """Return the error for a place where the page cannot be served, and what to do."""
    # Gradio finds no "empty port", and goes on about its own settings, which are not ours.
    if error.errno == errno.EADDRINUSE or "empty port" in str(error):
        why, advice = "the port is in use", "give another --port, or --port=0"
    elif error.errno in (errno.EACCES, errno.EPERM):
        why, advice = str(error.strerror), "give a --port from 1024, or --port=0"
    else:
        why = str(error.strerror or error)
        advice = "give an address of this machine as --host, or leave it out"
    return InputError(f"cannot listen at {host}:{port}: {why}: {advice}")


def serve(studio: Studio, host: str, port: int) -> None:
    """Serve the page until Ctrl-C or another signal."""
    page, address = start(studio, host, port)
    print(f"the page is at {address}  (Ctrl-C ends it)", flush=True)
    try:
        threading.Event().wait()
    finally:
        page.close(verbose=False)
