"""Writes lines in each way that functions do."""

import logging
import os
import sys
import warnings

logger = logging.getLogger()
logger.setLevel(logging.INFO)
audit = logging.getLogger("audit")
print("module imported")


def handler(event, context):
    word = event.get("word", "word")
    print("printed", word)
    print("no line end", end="")
    print()
    sys.stderr.write(f"error stream {word}\n")
    logger.debug("not shown %s", word)
    logger.info("information %s", word)
    audit.warning("audited %s", word)
    warnings.warn(f"warned {word}", stacklevel=1)
    os.write(1, f"raw {word}\n".encode())
    os.system(f"echo from a shell {word}")
    print("two\nlines")
    print("ünïcode ☃", word)
    try:
        raise KeyError(word)
    except KeyError:
        logger.exception("caught")
    return {"word": word}
