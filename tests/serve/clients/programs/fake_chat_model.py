"""A chat model for LangChain that gives prepared answers, with their usage of tokens."""

from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from pydantic import Field


def says(content: str, input_tokens: int, output_tokens: int, *tools: str) -> AIMessage:
    """Return an answer that calls tools, each for Oslo."""
    return AIMessage(
        content=content,
        tool_calls=[{"name": name, "args": {"city": "Oslo"}, "id": f"call-{name}"} for name in tools],
        usage_metadata={
            "input_tokens": input_tokens,
            "output_tokens": output_tokens,
            "total_tokens": input_tokens + output_tokens,
        },
    )


class FakeChatModel(BaseChatModel):
    """Gives its answers in turn, and repeats the last one; an exception is raised instead."""

    model_name: str = "fake-large-1"
    answers: list[Any] = Field(default_factory=list)

    @property
    def _llm_type(self) -> str:
        return "fake"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model_name": self.model_name}

    def bind_tools(self, tools: Any, **kwargs: Any) -> "FakeChatModel":
        """Return the model itself: its answers are prepared."""
        return self

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        answer = self.answers[0]
        if len(self.answers) > 1:
            del self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return ChatResult(generations=[ChatGeneration(message=answer.model_copy(update={"id": None}))])
