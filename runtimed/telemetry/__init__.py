"""What the control plane tells of itself and of the machine: its log, the host's figures, the node's checks."""
