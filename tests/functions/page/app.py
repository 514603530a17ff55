"""Renders an HTML page from templates that lie beside the code."""

import os
import pathlib

from jinja2 import Environment, FileSystemLoader, StrictUndefined, UndefinedError

ROOT = pathlib.Path(os.environ.get("LAMBDA_TASK_ROOT", pathlib.Path(__file__).parent))
templates = Environment(loader=FileSystemLoader(ROOT / "templates"), autoescape=True, undefined=StrictUndefined)
templates.filters["money"] = lambda cents: f"{cents / 100:,.2f}"


def handler(event, context):
    try:
        body = templates.get_template("invoice.html").render(**event)
    except UndefinedError as error:
        return {"statusCode": 400, "headers": {"Content-Type": "text/plain"}, "body": str(error)}
    return {"statusCode": 200, "headers": {"Content-Type": "text/html; charset=utf-8"}, "body": body}
