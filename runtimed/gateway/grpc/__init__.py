"""The gRPC gateway. `server` serves the API; `methods`, `convert` and `status` are what a client needs as well."""
