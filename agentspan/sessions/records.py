"""The records that decoders of others yield, under the name that version 0.2.0 documents."""

from agentspan.arriving import Outcome, Record, Session, Status, Step, Unread

__all__ = ["Outcome", "Record", "Session", "Status", "Step", "Unread"]
