"""The base of the models of request bodies. Unknown fields are ignored, unless a model refuses them."""

from typing import Any

from pydantic import BaseModel, ConfigDict


class Body(BaseModel):
    """The body of a request.

    A list in it has `fail_fast`: of its wrong items only the first is named. To name three million took 5 GB and 17 s.
    """

    model_config = ConfigDict(extra="ignore", strict=True)

    def said(self) -> dict[str, Any]:
        """Return the fields that the request has, as plain JSON."""
        return self.model_dump(exclude_unset=True, by_alias=True)
