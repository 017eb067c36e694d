"""The refusal of a request whose form is wrong: names each field as it was sent, without its value."""

from collections.abc import Sequence
from typing import Any

from fastapi.exceptions import RequestValidationError
from starlette.responses import Response

from agentspan.serve.responses import refuse


def refuse_invalid(error: RequestValidationError) -> Response:
    """Return the response to a request that does not parse."""
    problems = error.errors()
    places = [problem["loc"] for problem in problems]
    if any(place[0] == "query" for place in places):
        names = ", ".join(sorted({str(place[1]) for place in places if place[0] == "query" and len(place) > 1}))
        return refuse("bad_request", f"query parameters without the right form: {names}")
    if any(place[0] == "path" for place in places):
        return refuse("not_found", "the id in the path is no PFID")
    if any(
        len(place) < 2 or problem["type"] == "json_invalid" for place, problem in zip(places, problems, strict=True)
    ):
        return refuse("bad_request", "the body must be a JSON object")
    errors: dict[str, dict[str, str]] = {}
    for place, problem in zip(places, problems, strict=True):
        name = _name(place[1:], error.body)
        if name in errors:  # a field that may have several types has a problem with each
            errors[name]["message"] += f"; {problem['msg']}"
        else:
            code = "required_value" if problem["type"] == "missing" else "invalid_value"
            is_unknown = problem["type"] == "extra_forbidden"
            errors[name] = {"code": code, "message": "there is no such field" if is_unknown else problem["msg"]}
    return refuse("validation_errors", f"these fields are missing or wrong: {', '.join(errors)}", errors=errors)


def _name(place: Sequence[int | str], body: Any) -> str:
    """Return the name of a field in a body, such as `details.items[0].name`.

    pydantic's places go on with names of types where a field may have several: these are in no body.
    """
    name = ""
    for number, part in enumerate(place):
        if isinstance(body, list) and isinstance(part, int) and part < len(body):
            name, body = f"{name}[{part}]", body[part]
        elif isinstance(body, dict) and (part in body or number == len(place) - 1):
            name, body = f"{name}.{part}" if name else str(part), body.get(part)
        else:
            break
    return name
