"""The base of the models of request bodies. Unknown fields are ignored."""

from typing import Any

from pydantic import BaseModel, ConfigDict


class Body(BaseModel):
    """The body of a request."""

    model_config = ConfigDict(extra="ignore", strict=True)

    def said(self) -> dict[str, Any]:
        """Return the fields that the request has, as plain JSON."""
        return self.model_dump(exclude_unset=True, by_alias=True)
