"""Files, signals, screens, memory and the machine: nothing here knows a network."""
