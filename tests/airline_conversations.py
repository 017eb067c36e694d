"""Conversations of an airline's agent in the form in which tau-bench publishes its own: short and invented."""

import json
from pathlib import Path
from typing import Any

POLICY = {"role": "system", "content": "You are an airline's agent."}


def write(path: Path) -> None:
    """Write 60 requests, each twice: one with a booking, two with a cancellation, the others with nothing to change."""
    path.write_text(json.dumps([recorded(task, trial) for trial in range(2) for task in range(60)]))


def recorded(task: int, trial: int) -> dict[str, Any]:
    """Return a recorded conversation about a request."""
    messages, *of_task = REQUESTS.get(task, (asks, f"You ask about {task} bags."))
    return {"task_id": task, "trial": trial, "traj": [POLICY, *messages(trial)], "reward": 0.0, "info": info(*of_task)}


def info(instruction: str, *actions: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    """Return what is known of a request: what the customer wants, and what should change."""
    return {"task": {"instruction": instruction, "actions": [{"name": name, "kwargs": it} for name, it in actions]}}


def call(tool: str, arguments: dict[str, Any], answer: Any) -> list[dict[str, Any]]:
    """Return the model's call and the tool's answer."""
    id = f"call_{tool}"
    function = {"name": tool, "arguments": json.dumps(arguments)}
    content = answer if isinstance(answer, str) else json.dumps(answer)
    return [
        {"role": "assistant", "content": None, "tool_calls": [{"id": id, "type": "function", "function": function}]},
        {"role": "tool", "tool_call_id": id, "name": tool, "content": content},
    ]


def said(role: str, content: str) -> dict[str, Any]:
    """Return what somebody said."""
    return {"role": role, "content": content}


def booking(paid: int, bags: int) -> dict[str, Any]:
    """Return the arguments of a booking in economy with three pieces of baggage."""
    return {
        "user_id": "ada", "cabin": "economy", "passengers": [{"first_name": "Ada"}], "total_baggages": 3,
        "payment_methods": [{"payment_id": "card", "amount": paid}], "nonfree_baggages": bags,
    }  # fmt: skip


def books(trial: int) -> list[dict[str, Any]]:
    """A gold member, who may take three bags, is charged for one, and offers the right amount."""
    user = call("get_user_details", {"user_id": "ada"}, {"membership": "gold"})
    refused = "Error: payment amount does not add up, total price is 305, but paid 255"
    first = call("book_reservation", booking(255, 1), refused)
    return [said("user", f"Book a flight ({trial})."), *user, *first, said("assistant", "Please wait.")]


def cancels(reservation: str) -> Any:
    """A reservation without insurance is cancelled weeks later."""
    facts = {"reservation_id": reservation, "cabin": "economy", "insurance": "no", "created_at": "2024-05-01T05:17:41"}
    asked = {"reservation_id": reservation}

    def messages(trial: int) -> list[dict[str, Any]]:
        looked, done = call("get_reservation_details", asked, facts), call("cancel_reservation", asked, facts)
        return [said("user", f"Cancel it ({trial})."), *looked, *done, said("assistant", "Done.")]

    return messages


def asks(trial: int) -> list[dict[str, Any]]:
    """Nothing is changed."""
    return [said("user", f"What may I take along? ({trial})"), said("assistant", "Three bags.")]


REQUESTS: dict[int, Any] = {
    0: (books, "You want to book.", ("book_reservation", booking(255, 0))),
    34: (cancels("XEHM4B"), "You want to cancel.", ("cancel_reservation", {"reservation_id": "XEHM4B"})),
    41: (cancels("3RK2T9"), "You insist on cancelling."),
}
