"""State of the whole process: device, random seeds, arithmetic, memory, log, peers."""
