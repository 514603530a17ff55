"""The operations. Gateways find them in `table`; each resource has one file, each operation one method."""
