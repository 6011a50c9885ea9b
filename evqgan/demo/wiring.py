"""How the functions of the studio become Gradio's handlers: errors in a line, work that streams."""

import functools
import math
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr

from evqgan.core.errors import InputError, first_line, is_out_of_memory, out_of_memory
from evqgan.demo import filling, jobs
from evqgan.demo.results import Result
from evqgan.demo.studio import Studio, Tell

# What every handler is given: none of them is a function of an API.
PRIVATE: dict[str, Any] = {"api_visibility": "private"}
QUIET: dict[str, Any] = {**PRIVATE, "show_progress": "hidden"}
# Those that need the model wait in one queue, and one of them runs at a time.
ON_MODEL: dict[str, Any] = {**QUIET, "concurrency_id": "model", "concurrency_limit": 1}


def as_error(error: Exception) -> gr.Error:
    """Return an exception as what the page shows of it, in one line."""
    if isinstance(error, gr.Error):
        return error
    if isinstance(error, InputError):
        text = " ".join(str(error).split())
    elif is_out_of_memory(error):
        text = out_of_memory()
    else:
        traceback.print_exception(error)
        text = f"this is a defect, its traceback stands in the terminal: {first_line(error)}"
    return gr.Error(text, duration=12, print_exception=False)


def guarded(function: Callable) -> Callable:
    """Return a handler whose errors are shown in the page."""

    @functools.wraps(function)
    def run(*values: Any) -> Any:
        try:
            return function(*values)
        except Exception as error:
            raise as_error(error) from None

    return run


def streamed(
    studio: Studio, work: Callable[[Tell], Any], finish: Callable[[Any], Any]
) -> Iterator[tuple]:
    """Yield (line, picture while it is filled, *what `finish` makes of the result) as they come.

    work: see `jobs.events`. finish: returns the values of the other outputs, or None for those of
      which nothing is known yet.
    """
    waiting = finish(None)
    try:
        yield "waiting for the model ...", gr.skip(), *waiting
        for event in jobs.events(work):
            if event.result is not None:
                result = event.result
                line = (result if isinstance(result, Result) else result[0]).line
                yield line, gr.update(visible=False), *finish(result)
            elif event.picture is not None:
                picture = filling.shown(studio.model, event.picture)
                shown = gr.update(value=picture, visible=True)
                yield "filling block by block ...", shown, *waiting
            else:
                yield event.line, gr.skip(), *waiting
    except Exception as error:
        raise as_error(error) from None


def outcome(result: Result | None) -> tuple:
    """Return the values of gallery, download, command and last images: of no result, none yet."""
    if result is None:
        return gr.skip(), gr.skip(), gr.skip(), gr.skip()
    columns = min(4, math.ceil(math.sqrt(len(result.images))))
    gallery = gr.update(value=result.gallery(), columns=columns)
    return gallery, gr.update(value=result.archive, interactive=True), result.command, result.images
