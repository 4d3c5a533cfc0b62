"""What holds for the whole process: device, random seeds, arithmetic, memory, log, peers."""
