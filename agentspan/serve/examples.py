"""Examples for the OpenAPI document: of each field by its name, of requests by their route, of errors by their status.

A field of a single resource may have its example in `api/resources.py` instead.

Fields on the page "Finish an agent span" have the examples of that page.
"""

from collections.abc import Mapping
from typing import Any

AGENT = "013xrzp12g3nqk8nx0y2vfkg4s3jp2qr"
INSTANCE = "013xrzp12g3nqk8n4evtrcj59k8dhn3t"
SPAN = "013xrzp12g3nqk8ndr93q068mw7y0nv0"

FIELDS: Mapping[str, Any] = {
    "id": SPAN,
    "account_id": "013xrzp12g3nqk8ngskn1wtxgka5b0nf",
    "agent_id": AGENT,
    "agent_instance_id": INSTANCE,
    "agent_span_id": SPAN,
    "parent_span_id": SPAN,
    "agent_version_id": "013xrzp12g3nqk8n6kdc7z1q0v3m8y2a",
    "current_version_id": "013xrzp12g3nqk8n6kdc7z1q0v3m8y2a",
    "agent_schema_version_id": "013xrzp12g3nqk8n2f9w5c8t7r1d4e6b",
    "environment_id": "013xrzp12g3nqk8nq4p7v0s2x5z8b1c3",
    "agent_deployment_id": "013xrzp12g3nqk8nd6f9h2k5m8q1t4w7",
    "writer_id": "013xrzp12g3nqk8nv3r8w1x6y9z2a5b7",
    "closed_by": "abandoned",
    "closed_at": "2026-01-01T00:00:00.000000Z",
    "ended_late": False,
    "git_commit": "9fceb02d0ae598e95dc970b74767f19372d61af8",
    "session": "trip-7",
    "value": 0.9,
    "source": "model",
    "identifier": "judge-2",
    "explanation": "all constraints of the trip are met",
    "withdraw": False,
    "target_type": "agent_instance",
    "target_id": INSTANCE,
    "scores": [],
    "task": "book-a-trip",
    "tags": ["nightly"],
    "git_dirty": False,
    "user": "mia",
    "payload_byte_size_estimate": 151,
    "total_cost": 0.00004,
    "by_model": {"gpt-4.1": 0.00004},
    "span_schema_counts": {"llm": 1, "tool": 1},
    "risk_level": "low",
    "risk_score": 0.1,
    "sensitive_encoding": False,
    "schema_name": "llm",
    "schema_title": "LLM",
    "payload": {"model": "gpt-4.1", "messages": [{"role": "user", "content": "hi"}]},
    "result_payload": {"text": "Hello!", "input_tokens": 8, "output_tokens": 3},
    "summary": 'LLM gpt-4.1: 8→3 tok "Hello!"',
    "label": "gpt-4.1",
    "input_tokens": 8,
    "output_tokens": 3,
    "cost_usd": 0.00004,
    "duration_ms": 812.5,
    "started_at": "2024-01-01T00:00:00Z",
    "finished_at": "2024-01-01T00:00:00Z",
    "inserted_at": "2024-01-01T00:00:00Z",
    "updated_at": "2024-01-01T00:00:00Z",
    "timestamp": "2024-01-01T00:00:00Z",
    "start_time": "2024-01-01T00:00:00Z",
    "end_time": "2024-01-02T00:00:00Z",
    "idempotency_key": "finish-013xrzp12g3nqk8n",
    "reason": "costs more than it may",
    "path": "$.messages[0].role",
    "keyword": "type",
    "termination_reason": "costs more than it may",
    "name": "researcher",
    "title": "Researcher",
    "description": "Finds things out",
    "external_identifier": "researcher-1",
    "owner_person_id": "013xrzp12g3nqk8n2v7q4c9x5m1t8b3k",
    "team_id": "013xrzp12g3nqk8n7h4z1w6s9p2r5d8f",
    "risk_profile_id": "013xrzp12g3nqk8n5j8m3y6k1v4x9q2c",
    "template": "Charge {{amount}}",
    "result_template": "{% if approved %}approved{% else %}declined{% endif %}",
    "purpose": "live",
    "metadata": {"ticket": "A-17"},
    "result": {"output": "done"},
    "error": {"type": "TimeoutError", "message": "no answer within 30 s", "stacktrace": ""},
    "sorting": "-inserted_at",
    "content_hash": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "message": "the body must be a JSON object",
    "_type": "agent_spans/finish",
    "count": 1,
    "pfids": [SPAN],
    "params_schema": {"type": "object", "properties": {"amount": {"type": "number"}}, "required": ["amount"]},
    "result_schema": {"type": "object"},
    "schema": {"type": "object", "properties": {"score": {"type": "number"}}},
    "span_schemas": {"app:charge": {"type": "object", "properties": {"amount": {"type": "number"}}}},
    "span_result_schemas": {"app:charge": {"type": "object"}},
    "data_risk": {"level": "low"},
    "runtime_environment": {"python": "3.12"},
    "quality_payloads": {"helpfulness": {"score": 0.9}},
    "quality_summaries": {"helpfulness": "0.9 of 1"},
    "quality_payload": {"report": "9 of 10 checks passed"},
    "quality_summary": "9 of 10 checks passed",
    "quality_schema": {"schema": {"type": "object"}, "template": "{{report}}"},
    "include_summaries": True,
    "include_history": True,
    "pagination[offset]": 0,
    "pagination[page_size]": 50,
    "external_id": "researcher-1",
    "field": "inserted_at",
}
"""Examples by field name, for every schema and parameter with a field of that name that takes such a value."""

MODELS: Mapping[tuple[str, str], Any] = {
    ("AgentSpan", "status"): "active",
    ("FinishSpan", "status"): "complete",
    ("SpanForCreate", "status"): "active",
    ("Error", "code"): "bad_request",
    ("Account", "id"): "013xrzp12g3nqk8ngskn1wtxgka5b0nf",
    ("Account", "name"): "local",
    ("Environment", "id"): "013xrzp12g3nqk8nq4p7v0s2x5z8b1c3",
    ("Environment", "name"): "local",
    ("AgentDeployment", "id"): "013xrzp12g3nqk8nd6f9h2k5m8q1t4w7",
    ("SpanTypeSchema", "name"): "app:charge",
    ("SpanTypeSchema", "title"): "Charge",
    ("SpanTypeSchema", "description"): "Charges a card",
    ("QualitySchema", "name"): "helpfulness",
    ("QualitySchema", "title"): "Helpfulness",
    ("QualitySchema", "template"): "{{score}} of 1",
    ("UnnamedQualitySchema", "title"): "Checks",
    ("UnnamedQualitySchema", "template"): "{{report}}",
    ("RecordQuality", "name"): "helpfulness",
    ("Score", "name"): "reward",
    ("Score", "label"): "good",
    ("RecordScore", "name"): "reward",
    ("RecordScore", "label"): "good",
    ("RecordQuality", "payload"): {"score": 0.9},
    ("Agent", "id"): AGENT,
    ("AgentForCreate", "id"): AGENT,
    ("AgentInstance", "id"): INSTANCE,
    ("RegisterInstance", "id"): INSTANCE,
    ("AgentVersion", "id"): FIELDS["agent_version_id"],
    ("AgentSchemaVersion", "id"): FIELDS["agent_schema_version_id"],
    ("AgentSchemaVersion", "span_type_schemas"): [{"name": "app:charge", "title": "Charge"}],
    ("AgentSchemaVersion", "quality_schemas"): [{"name": "helpfulness", "schema": {"type": "object"}}],
    ("AgentInstance", "status"): "active",
    ("Agent", "status"): "active",
    ("ContextBody", "body"): {"instance": {"id": INSTANCE}, "agent": {"id": AGENT}, "schema": {}, "spans": []},
    ("BulkOutputs", "outputs"): {"finish-1": {"status": "success", "details": {"type": "agent_span", "id": SPAN}}},
}
"""Examples by schema and field, for fields whose name alone does not determine the example."""

WHOLE: Mapping[str, Mapping[str, Any]] = {
    "AgentSpan": {
        "status": "complete",
        "parent_span_id": None,
        "finished_at": "2024-01-01T00:00:00.812500Z",
        "updated_at": "2024-01-01T00:00:00.812500Z",
        "writer_id": None,
        "closed_by": None,
        "closed_at": None,
        "ended_late": False,
        "risk_level": None,
        "risk_score": None,
    },
    "AgentInstance": {
        "finished_at": None,
        "termination_reason": None,
        "duration_ms": None,
        "result": None,
        "error": None,
        "writer_id": None,
        "closed_by": None,
        "closed_at": None,
        "ended_late": False,
        "git_commit": None,
        "session": None,
        "task": None,
        "tags": [],
        "git_dirty": None,
        "user": None,
        "risk_score": None,
    },
    "AgentDeployment": {"agent_id": None, "current_version_id": None},
    "SpanCounts": {"total": 2, "active": 1, "complete": 1, "finished": 1},
    "InstanceCounts": {"total": 2, "active": 1, "complete": 1, "finished": 1},
    "Pagination": {"item_end": 1, "page_offset": 0, "page_size": 50, "next_page_offset": None}
    | {"previous_page_offset": None},
}
"""The fields that an example of a whole resource has besides the examples of its fields, so that it makes sense."""

_CREATE = {"agent_instance_id": INSTANCE, "schema_name": "llm", "status": "active", "payload": FIELDS["payload"]}
_RESULT = {"result_payload": FIELDS["result_payload"]}

REQUESTS: Mapping[str, Mapping[str, Any]] = {
    "finish_span": {"complete": _RESULT, "cancel a pending span": {"status": "cancelled"}},
    "create_span": {
        "active": {"details": _CREATE},
        "as the TypeScript client": {"details": _CREATE, "idempotency_key": "create-013xrzp12g3nqk8n"},
    },
    "start_span": {"now": {}, "earlier": {"timestamp": FIELDS["timestamp"]}},
    "run_bulk": {
        "create and list": {
            "items": [
                {"_type": "agent_spans/create", "idempotency_key": "create-1", **_CREATE},
                {"_type": "agent_spans/list", "idempotency_key": "list-of-1", "agent_instance_id": INSTANCE},
            ]
        }
    },
    "create_agent": {"agent": {"details": {"name": "researcher", "external_identifier": "researcher-1"}}},
    "update_agent": {"description": {"details": {"description": "Finds things out"}}},
    "retire_agent": {"plain": {}},
    "reinstate_agent": {"plain": {}},
    "create_schema_version": {
        "span types": {
            "details": {
                "agent_id": AGENT,
                "span_type_schemas": [{"name": "app:charge", "params_schema": FIELDS["params_schema"]}],
            }
        }
    },
    "register_instance": {
        "by name": {
            "agent_id": "researcher",
            "agent_version": {"name": "1.2", "external_identifier": "1.2"},
            "agent_schema_version": {"span_schemas": FIELDS["span_schemas"]},
        }
    },
    "start_instance": {"now": {}},
    "finish_instance": {"complete": {}, "failed": {"status": "failed"}},
    "terminate_instance": {"reason": {"reason": FIELDS["reason"]}},
    "update_instance": {"evaluation": {"details": {"quality_payload": {"report": "9 of 10 checks passed"}}}},
    "score_instance": {"reward": {"name": "reward", "value": 1, "source": "code"}},
    "score_span": {"label": {"name": "correct", "label": "good", "source": "human", "identifier": "mia"}},
    "record_quality": {"evaluation": {"name": "helpfulness", "payload": {"score": 0.9}}},
    "generate_pfids": {"two": {"count": 2}},
}
"""Examples of requests, by the name of the operation."""

ERRORS: Mapping[str, Mapping[str, Any]] = {
    "400": {"code": "bad_request", "message": "the body must be a JSON object"},
    "401": {"code": "not_authenticated", "message": "send Authorization: Bearer TOKEN"},
    "403": {"code": "not_permitted", "message": "this server only reads"},
    "404": {"code": "not_found", "message": f"no agent span has the id '{SPAN}'"},
    "409": {
        "code": "invalid_action",
        "message": f"agent span {SPAN} is complete: only an active one can become complete",
    },
    "413": {"code": "bad_request", "message": "the body has more than 10485760 bytes"},
    "415": {"code": "bad_request", "message": "send Content-Type: application/json"},
    "422": {
        "code": "validation_errors",
        "message": "these fields are missing or wrong: status",
        "errors": {
            "status": {"code": "invalid_value", "message": "Input should be 'complete', 'failed' or 'cancelled'"}
        },
    },
    "429": {"code": "not_permitted", "message": "too many wrong tokens; try again after 3 s"},
    "500": {"code": "unexpected", "message": "an unexpected fault; the server's log has more under request 5a1f03c2"},
    "503": {"code": "unknown", "message": "the database is busy; try again"},
}
"""Examples of errors, by HTTP status."""
