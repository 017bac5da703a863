"""--mode=plan: parameters, memory, FLOPs, traffic and time of a run, estimated before it runs."""
