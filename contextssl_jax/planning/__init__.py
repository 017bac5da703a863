"""--mode=plan: what a run costs in parameters, memory, FLOPs, traffic and time, before it runs."""
