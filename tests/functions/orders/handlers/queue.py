"""Takes a batch of messages and reports the ones that failed, for a queue that redelivers only these."""

import json
import logging

from .prices import price_of

logger = logging.getLogger(__name__)


class BadOrder(ValueError):
    """An order that will never work."""


def total(order):
    if not order.get("lines"):
        raise BadOrder("an order without lines")
    return sum(price_of(line["article"]) * line["count"] for line in order["lines"])


def receive(event, context):
    failures, totals = [], {}
    for record in event["Records"]:
        try:
            order = json.loads(record["body"])
            totals[order["id"]] = str(total(order))
        except (ValueError, KeyError):
            logger.exception("message %s", record["messageId"])
            failures.append({"itemIdentifier": record["messageId"]})
    return {"batchItemFailures": failures, "totals": totals}
