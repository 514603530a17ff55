"""Solves a linear system and reports how well: numpy with its own threads and shared libraries."""

import numpy as np


def handler(event, context):
    size = int(event.get("size", 120))
    random = np.random.default_rng(event.get("seed", 7))
    a = random.standard_normal((size, size)) + size * np.eye(size)
    x = random.standard_normal(size)
    solved = np.linalg.solve(a, a @ x)
    values = np.linalg.eigvalsh(a @ a.T)
    return {
        "size": size,
        "error": float(np.abs(solved - x).max()),
        "trace": float(np.trace(a @ a.T)),
        "eigenvalue_sum": float(values.sum()),
    }
