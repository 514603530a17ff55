"""Makes a thumbnail of an uploaded picture: base64 in, base64 JPEG out, as an API Gateway integration would."""

import base64
import io
import json

from PIL import Image, ImageOps

WIDTH = 128


def handler(event, context):
    width = int((event.get("queryStringParameters") or {}).get("width", WIDTH))
    with Image.open(io.BytesIO(base64.b64decode(event["body"]))) as picture:
        original = picture.size
        small = ImageOps.exif_transpose(picture).convert("RGB")
        small.thumbnail((width, width * 4), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    small.save(out, "JPEG", quality=85, optimize=True)
    print(json.dumps({"original": original, "thumbnail": small.size, "bytes": out.tell()}))
    return {
        "statusCode": 200,
        "headers": {"Content-Type": "image/jpeg", "X-Original-Size": "{}x{}".format(*original)},
        "body": base64.b64encode(out.getvalue()).decode(),
        "isBase64Encoded": True,
    }
