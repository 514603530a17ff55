"""Hashes: a password with PBKDF2 and scrypt, a chain of SHA-256, and files with BLAKE2."""

import hashlib
import hmac


def chain(seed, rounds):
    digest = seed
    for _ in range(rounds):
        digest = hashlib.sha256(digest).digest()
    return digest.hex()


def handler(event, context):
    secret = event["secret"].encode()
    salt = bytes.fromhex(event["salt"])
    return {
        "pbkdf2": hashlib.pbkdf2_hmac("sha256", secret, salt, event.get("iterations", 20_000)).hex(),
        "scrypt": hashlib.scrypt(secret, salt=salt, n=2**10, r=8, p=1, dklen=32).hex(),
        "chain": chain(secret, event.get("rounds", 20_000)),
        "blake2b": hashlib.blake2b(secret * 1000, key=salt, digest_size=32).hexdigest(),
        "hmac": hmac.new(salt, secret, "sha512").hexdigest(),
    }
